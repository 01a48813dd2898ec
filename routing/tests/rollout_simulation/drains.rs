//! Edges that are taken out for maintenance: what they are told is a record, phases do not wait for them while their region has
//! others, and the last one is not taken out.

use helix_routing::api::RegionView;
use helix_routing::edge::record::{Drain, EdgeRecord};
use helix_routing::id::{EdgeId, Epoch, Generation};

use crate::checks::Check;
use crate::scenario::Safeguard;
use crate::sides::{Beside, Key, Says};
use crate::world::World;

/// What was asked a moment ago may not have come to a rollout that waits already, and an origin stands still for up to 25 s between its
/// look at the fleet and the answer of its save.
const LATELY: u64 = 35_000;

impl World {
    /// What SQL says: the edges that are taken out.
    pub(crate) fn drained_in_sql(&self, edge: usize) -> bool {
        let said = self.sql.sides.get(&Key::Edge(edge));
        said.is_some_and(|side| matches!(&side.says, Says::Edge(told) if told.drain.is_some()))
    }

    /// In one transaction. None but the edges that its process knows to serve can take the place of this one.
    pub(crate) fn drain(&mut self, origin: usize, epoch: Epoch, (edge, drains): (usize, bool)) {
        let key = Key::Edge(edge);
        let held = self.sql.sides.get(&key).map(|side| side.says.clone());
        let mut record = match held {
            Some(Says::Edge(record)) => record,
            Some(_) | None => {
                let region = self.names.regions[self.edges[edge].region].clone();
                EdgeRecord::blank(self.names.edges[edge].clone(), region, epoch)
            }
        };
        if record.drain.is_some() == drains || (drains && self.is_missed(origin, edge)) {
            return;
        }
        record.epoch = epoch;
        record.generation = record.generation.next();
        record.drain = drains.then(|| Drain {
            reason: "disk".to_owned(),
            since: self.origins[origin].clock.read(self.now),
            until: None,
        });
        self.sql
            .sides
            .insert(key, Beside::new(key, Says::Edge(record)));
        self.counts.count(if drains {
            "an edge was taken out"
        } else {
            "an edge was put back"
        });
        if !drains {
            self.edges[edge].back_at = self.now;
        }
        self.check_drained(edge);
    }

    /// Whether nobody in its region would be answered without it: of those that hold their lease, SQL says who is taken out.
    fn is_missed(&mut self, origin: usize, edge: usize) -> bool {
        let region = self.edges[edge].region;
        if self.sql.records[region].record.generation.0 == 0 {
            return false;
        }
        let others = self.leased(origin, region);
        // Its process is told after the commit: of who was taken out a moment ago SQL alone knows.
        let is_out = |other: usize| match self.without {
            Some(Safeguard::LastEdge) => self.is_out(origin, other),
            _ => self.is_out(origin, other) || self.drained_in_sql(other),
        };
        let is_left = |other: &usize| *other != edge && !is_out(*other);
        let is_missed = !others.iter().any(is_left);
        if is_missed {
            self.counts.count("the last edge was not taken out");
        }
        is_missed
    }

    fn is_out(&self, origin: usize, edge: usize) -> bool {
        self.origins[origin].roster.drained.contains_key(&edge)
    }

    /// A process that begins reads it, and whoever has changed it tells its own.
    pub(crate) fn read_drains(&mut self, origin: usize) {
        for edge in 0..self.edges.len() {
            let is_out = self.drained_in_sql(edge);
            let drained = &mut self.origins[origin].roster.drained;
            if is_out {
                drained.entry(edge).or_insert(self.now);
            } else {
                drained.remove(&edge);
            }
        }
        self.look_at_fleet(origin);
    }

    /// Phases do not wait for it: it is taken out, and its region has others.
    pub(crate) fn is_left_out(&self, origin: usize, edge: usize) -> bool {
        let is_missed = self.without == Some(Safeguard::DrainsDoNotCount);
        let id = &self.names.edges[edge];
        !is_missed && self.is_out(origin, edge) && self.has_others(origin, id)
    }

    pub(crate) fn told_of_drain(&mut self, edge: usize, record: &EdgeRecord) {
        if record.edge != self.names.edges[edge] {
            return;
        }
        let this = &mut self.edges[edge];
        if record.generation < this.told {
            let text = format!("{} goes back to {}", record.edge, record.generation);
            self.fail(Check::Rising, text);
        }
        let this = &mut self.edges[edge];
        this.told = record.generation;
        this.drains = record.drain.is_some();
    }

    /// A region that has sites is not left without an edge that serves by anybody's word.
    fn check_drained(&mut self, edge: usize) {
        let region = self.edges[edge].region;
        let here = (0..self.edges.len()).filter(|other| self.edges[*other].region == region);
        let serve = here.filter(|other| !self.drained_in_sql(*other)).count();
        if serve == 0 && self.sql.records[region].record.generation.0 > 0 {
            let text = format!("every edge of region {region} is taken out");
            self.fail(Check::Drained, text);
        }
    }

    /// A phase that begins waits for nobody who was taken out a while ago, while others are there.
    pub(crate) fn check_waited(&mut self, view: &RegionView) {
        let Some(origin) = self.leader() else { return };
        let fleet = self.fleet(origin);
        let Some(here) = fleet.regions.get(&view.region) else {
            return;
        };
        let is_out = |edge: &EdgeId| {
            let roster = &self.origins[origin].roster;
            let since = roster.drained.get(&self.names.edge(edge));
            since.is_some_and(|since| since + LATELY < self.now) && self.has_others(origin, edge)
        };
        let waited = view.required.iter().find(|edge| is_out(edge));
        let is_there = |edge: &EdgeId| here.live.contains(edge) && !is_out(edge);
        if let Some(waited) = waited
            && view.required.iter().any(is_there)
        {
            let text = format!("{:?} waits for {waited}, which is taken out", view.phase);
            self.fail(Check::Drained, text);
        }
    }

    fn has_others(&self, origin: usize, edge: &EdgeId) -> bool {
        let drained = &self.origins[origin].roster.drained;
        let region = self.edges[self.names.edge(edge)].region;
        let mut all = (0..self.edges.len()).filter(|other| self.edges[*other].region == region);
        all.any(|other| !drained.contains_key(&other))
    }

    /// Once all is quiet every edge keeps to what SQL says of it.
    pub(crate) fn check_told(&mut self) {
        for edge in 0..self.edges.len() {
            let said = self.sql.sides.get(&Key::Edge(edge));
            let said = said.map_or(Generation(0), |side| side.place().1);
            let this = &self.edges[edge];
            if this.is_up && (this.told != said || this.drains != self.drained_in_sql(edge)) {
                let text = format!("{} was not told {said}", self.names.edges[edge]);
                return self.fail(Check::Drained, text);
            }
        }
    }
}
