//! What origin publishes: one record at a time, read from SQL and sent to a stream that knows whose term it is.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use helix_routing::id::{Epoch, RegionId, SiteId};
use helix_routing::record::SiteRecord;
use helix_routing::wire::Wire;

use crate::agenda::InOrigin;
use crate::checks::Check;
use crate::network::Message;
use crate::scenario::Safeguard;
use crate::sides::{Beside, Key};
use crate::world::World;

/// A record with the bytes that edges compare.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) record: SiteRecord,
    pub(crate) body: Vec<u8>,
    /// The term in its envelope, and who has signed that.
    pub(crate) sealed: Epoch,
    pub(crate) by_operator: bool,
}

/// Who may write to a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Term {
    pub(crate) epoch: Epoch,
    pub(crate) by_operator: bool,
}

impl Published {
    pub(crate) fn new(record: SiteRecord) -> Rc<Self> {
        let sealed = record.epoch;
        Rc::new(Self::of(record, sealed, false))
    }

    pub(crate) fn signed(record: SiteRecord) -> Rc<Self> {
        let sealed = record.epoch;
        Rc::new(Self::of(record, sealed, true))
    }

    /// The same bytes, published in this term.
    fn sealed(&self, epoch: Epoch) -> Rc<Self> {
        Rc::new(Self::of(self.record.clone(), epoch, false))
    }

    fn of(record: SiteRecord, sealed: Epoch, by_operator: bool) -> Self {
        Self {
            body: record.encode(),
            record,
            sealed,
            by_operator,
        }
    }

    pub(crate) fn blank(site: &SiteId, region: &RegionId) -> Rc<Self> {
        Self::new(SiteRecord::blank(site.clone(), region.clone(), Epoch(0)))
    }
}

/// The feed: one stream for each region, with its newest record and who may write.
pub(crate) struct Stream {
    /// By region, and of the one that all edges follow.
    pub(crate) terms: Vec<Term>,
    pub(crate) newest: Vec<Option<Rc<Published>>>,
    pub(crate) sides: BTreeMap<Key, Rc<Beside>>,
}

impl Stream {
    pub(crate) fn new(regions: usize) -> Self {
        Self {
            terms: vec![Term::default(); regions + 1],
            newest: vec![None; regions],
            sides: BTreeMap::new(),
        }
    }
}

/// Regions whose record is to be published, and the record that is on its way.
#[derive(Default)]
pub(crate) struct Publisher {
    pub(crate) waiting: VecDeque<usize>,
    pub(crate) sending: Option<Rc<Published>>,
    /// Another record that is.
    pub(crate) side: Option<Rc<Beside>>,
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
        if process.publisher.sending.is_some() {
            return;
        }
        let terms = &self.stream.terms;
        process
            .publisher
            .waiting
            .retain(|region| process.epoch <= terms[*region].epoch);
        let Some(region) = process.publisher.waiting.pop_front() else {
            return;
        };
        let record = Rc::clone(&self.sql.records[region]);
        if record.record.generation.0 == 0 {
            return;
        }
        let record = record.sealed(self.origins[origin].epoch);
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
        let region = self.names.region(&record.record.region);
        let is_own = self.writes_to(origin, region);
        if is_own || self.without == Some(Safeguard::StreamTerm) {
            self.append(record);
            self.publish_next(origin);
        } else {
            self.counts
                .count("the stream refused an origin that was replaced");
            self.establish(origin, region);
        }
    }

    /// Whether the term in the stream of the region is this origin's.
    pub(crate) fn writes_to(&self, origin: usize, region: usize) -> bool {
        let term = self.stream.terms[region];
        !term.by_operator && term.epoch == self.origins[origin].epoch
    }

    /// What is on the stream reaches every edge of its region now, again, late or never.
    pub(crate) fn append(&mut self, record: Rc<Published>) {
        let region = self.names.region(&record.record.region);
        self.check_append(region, &record);
        self.check_taken_in(region, &record);
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
            // What an operator has signed was never saved here.
            let newest = newest.as_ref().filter(|newest| !newest.by_operator);
            let newest = newest.map(|newest| newest.record.generation);
            newest > Some(saved.record.generation)
        };
        let lost = published.into_iter().find(is_lost);
        if let Some(text) = lost.map(|(newest, _)| format!("published and not saved: {newest:?}")) {
            self.fail(Check::NothingLost, text);
        }
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
        self.publish_sides(origin);
    }
}
