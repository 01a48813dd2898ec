//! What origin publishes: one record at a time, read from SQL and sent to a stream that knows whose term it is.

use std::collections::VecDeque;
use std::rc::Rc;

use helix_routing::id::{Epoch, RegionId, SiteId};
use helix_routing::record::SiteRecord;
use helix_routing::wire::Wire;

use crate::agenda::InOrigin;
use crate::checks::Check;
use crate::network::Message;
use crate::scenario::Safeguard;
use crate::world::World;

/// A record with the bytes that edges compare.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) record: SiteRecord,
    pub(crate) body: Vec<u8>,
}

impl Published {
    pub(crate) fn new(record: SiteRecord) -> Rc<Self> {
        let body = record.encode();
        Rc::new(Self { record, body })
    }

    pub(crate) fn blank(site: &SiteId, region: &RegionId) -> Rc<Self> {
        Self::new(SiteRecord::blank(site.clone(), region.clone(), Epoch(0)))
    }
}

/// The feed: the newest record of each region, and who may write.
pub(crate) struct Stream {
    pub(crate) term: Epoch,
    pub(crate) newest: Vec<Option<Rc<Published>>>,
}

impl Stream {
    pub(crate) fn new(regions: usize) -> Self {
        Self {
            term: Epoch(0),
            newest: vec![None; regions],
        }
    }
}

/// Regions whose record is to be published, and the record that is on its way.
#[derive(Default)]
pub(crate) struct Publisher {
    pub(crate) waiting: VecDeque<usize>,
    pub(crate) sending: Option<Rc<Published>>,
}

impl World {
    pub(crate) fn publish(&mut self, origin: usize, region: usize) {
        let publisher = &mut self.origins[origin].publisher;
        if !publisher.waiting.contains(&region) {
            publisher.waiting.push_back(region);
        }
        self.publish_next(origin);
    }

    /// It begins after the stream's term is its own; between reading and sending another can take over.
    fn publish_next(&mut self, origin: usize) {
        let process = &mut self.origins[origin];
        if process.publisher.sending.is_some() || process.epoch > self.stream.term {
            return;
        }
        let Some(region) = process.publisher.waiting.pop_front() else {
            return;
        };
        let record = Rc::clone(&self.sql.records[region]);
        if record.record.generation.0 == 0 {
            return;
        }
        self.send_to_stream(origin, record);
    }

    fn send_to_stream(&mut self, origin: usize, record: Rc<Published>) {
        self.origins[origin].publisher.sending = Some(record);
        let millis = if self.dice.one_in(30) {
            1_500
        } else {
            self.dice.between(1, 20)
        };
        self.due_in_origin(millis, origin, InOrigin::Sent);
    }

    /// The write is conditional on the term that the stream itself holds.
    pub(crate) fn sent(&mut self, origin: usize) {
        let Some(record) = self.origins[origin].publisher.sending.take() else {
            return;
        };
        let is_own = self.origins[origin].epoch == self.stream.term;
        if is_own || self.without == Some(Safeguard::StreamTerm) {
            self.append(record);
            self.publish_next(origin);
        } else {
            self.counts
                .count("the stream refused an origin that was replaced");
            self.fence(origin);
        }
    }

    /// What is on the stream reaches every edge of its region now, again, late or never.
    pub(crate) fn append(&mut self, record: Rc<Published>) {
        let region = self.names.region(&record.record.region);
        self.check_append(region, &record);
        for edge in 0..self.edges.len() {
            if self.edges[edge].region == region {
                let record = Rc::clone(&record);
                self.send(Message::Record { edge, record });
            }
        }
        self.stream.newest[region] = Some(record);
    }

    fn check_append(&mut self, region: usize, record: &Published) {
        let place = |record: &Published| (record.record.generation, record.record.epoch);
        if let Some(newest) = &self.stream.newest[region] {
            let (last, next) = (place(newest), place(record));
            if next < last || (next.0 == last.0 && record.body != newest.body) {
                let text = format!("the stream goes from {last:?} to {next:?}");
                self.fail(Check::NothingLost, text);
            }
        }
    }

    /// What edges were told is saved, whoever was killed when.
    pub(crate) fn check_published(&mut self) {
        let published = self.stream.newest.iter().zip(&self.sql.records);
        let is_lost = |(newest, saved): &(&Option<Rc<Published>>, &Rc<Published>)| {
            let newest = newest.as_ref().map(|newest| newest.record.generation);
            newest > Some(saved.record.generation)
        };
        let lost = published.into_iter().find(is_lost);
        if let Some(text) = lost.map(|(newest, _)| format!("published and not saved: {newest:?}")) {
            self.fail(Check::NothingLost, text);
        }
    }

    pub(crate) fn raise_stream_term(&mut self, origin: usize) {
        let epoch = self.origins[origin].epoch;
        if epoch < self.stream.term {
            return self.fence(origin);
        }
        self.stream.term = epoch;
        self.publish_unsent(origin);
    }

    /// What is in the outbox and not on the stream.
    pub(crate) fn publish_unsent(&mut self, origin: usize) {
        for region in 0..self.names.regions.len() {
            let saved = &self.sql.records[region].record;
            let newest = self.stream.newest[region].as_ref();
            let newest = newest.map_or(0, |newest| newest.record.generation.0);
            if saved.generation.0 > newest {
                self.publish(origin, region);
            }
        }
    }
}
