//! Records beside those of the site: what an edge is told about itself, where hosts route, what is purged. They travel as all do:
//! written in a transaction, published under a term, in any order, compared, on disk, and only then followed.

use std::rc::Rc;

use helix_routing::edge::record::EdgeRecord;
use helix_routing::id::{Epoch, Generation};
use helix_routing::record::{HostRecord, Order, PurgeRecord, order};
use helix_routing::wire::Wire;

use crate::agenda::{InOrigin, OnEdge};
use crate::checks::Check;
use crate::disk::Disk;
use crate::network::Message;
use crate::scenario::Safeguard;
use crate::world::World;

/// Under which it is on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Edge(usize),
    /// Of a region.
    Purge(usize),
    Host(u8),
}

#[derive(Clone, Debug)]
pub(crate) enum Says {
    Edge(EdgeRecord),
    Purge(PurgeRecord),
    Host(HostRecord),
}

/// One of them, with the bytes that edges compare.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) key: Key,
    pub(crate) says: Says,
    pub(crate) body: Vec<u8>,
}

impl Beside {
    pub(crate) fn new(key: Key, says: Says) -> Rc<Self> {
        let body = match &says {
            Says::Edge(edge) => edge.encode(),
            Says::Purge(purge) => purge.encode(),
            Says::Host(host) => host.encode(),
        };
        Rc::new(Self { key, says, body })
    }

    pub(crate) const fn place(&self) -> (Epoch, Generation) {
        match &self.says {
            Says::Edge(edge) => (edge.epoch, edge.generation),
            Says::Purge(purge) => (purge.epoch, purge.generation),
            Says::Host(host) => (host.epoch, host.generation),
        }
    }

    fn compared(&self) -> (Epoch, Generation, &[u8]) {
        let (epoch, generation) = self.place();
        (epoch, generation, &self.body)
    }
}

impl World {
    /// The stream that carries it, by its place among the terms: a region's, or the one of all edges.
    fn scope(&self, key: Key) -> usize {
        match key {
            Key::Edge(edge) => self.edges[edge].region,
            Key::Purge(region) => region,
            Key::Host(_) => self.names.regions.len(),
        }
    }

    /// Edges follow the stream of their region, and that of all.
    fn follows(&self, edge: usize, scope: usize) -> bool {
        scope == self.edges[edge].region || scope == self.names.regions.len()
    }

    /// What is in the outbox and not on the stream, one after the other.
    pub(crate) fn publish_sides(&mut self, origin: usize) {
        let process = &self.origins[origin];
        if process.publisher.side.is_some() {
            return;
        }
        let unsent = self.sql.sides.values().find(|saved| {
            let newest = self.stream.sides.get(&saved.key);
            let is_newer = newest.is_none_or(|newest| newest.place().1 < saved.place().1);
            is_newer && self.writes_to(origin, self.scope(saved.key))
        });
        if let Some(unsent) = unsent.map(Rc::clone) {
            self.origins[origin].publisher.side = Some(unsent);
            let millis = self.dice.between(1, 20);
            self.due_in_origin(millis, origin, InOrigin::SideSent);
        }
    }

    pub(crate) fn side_sent(&mut self, origin: usize) {
        let Some(side) = self.origins[origin].publisher.side.take() else {
            return;
        };
        let scope = self.scope(side.key);
        if !self.writes_to(origin, scope) && self.without != Some(Safeguard::StreamTerm) {
            return self.establish(origin, scope);
        }
        for edge in 0..self.edges.len() {
            if self.follows(edge, scope) {
                let side = Rc::clone(&side);
                self.send(Message::Side { edge, side });
            }
        }
        self.stream.sides.insert(side.key, side);
        self.publish_sides(origin);
    }

    /// What the feed did not bring is fetched.
    pub(crate) fn repair_sides(&mut self, edge: usize) {
        let this = &self.edges[edge];
        let newest = self.stream.sides.values();
        let missed = newest.filter(|newest| self.follows(edge, self.scope(newest.key)));
        let missed = missed.filter(|newest| {
            let held = this.sides.get(&newest.key).and_then(Disk::newest);
            held.is_none_or(|held| held.place().1 < newest.place().1)
        });
        for side in missed.map(Rc::clone).collect::<Vec<_>>() {
            self.receive_side(edge, &side);
        }
    }

    pub(crate) fn receive_side(&mut self, edge: usize, new: &Rc<Beside>) {
        let this = &mut self.edges[edge];
        if !this.is_up {
            return;
        }
        let disk = this.sides.entry(new.key).or_insert_with(Disk::new);
        let held = disk.newest().map(|held| held.compared());
        let takes_older = match new.key {
            Key::Host(_) => self.without == Some(Safeguard::HostCompare),
            Key::Edge(_) | Key::Purge(_) => false,
        };
        match order(held, new.compared()) {
            Order::Older if !takes_older => {}
            Order::Newer | Order::Older => {
                disk.write(Rc::clone(new));
                let millis = self.dice.between(1, 60);
                let key = new.key;
                self.due_on_edge(millis, edge, OnEdge::SideSynced { key });
                self.at_write(edge);
            }
            Order::Same => {}
            Order::Conflict => {
                let text = format!("two records of one generation, the second {:?}", new.says);
                self.fail(Check::NothingLost, text);
            }
        }
    }

    /// It is safe: from now on it counts.
    pub(crate) fn side_synced(&mut self, edge: usize, key: Key) {
        let disk = self.edges[edge].sides.get_mut(&key);
        if let Some(side) = disk.and_then(|disk| disk.sync().map(Rc::clone)) {
            self.follow_side(edge, &side);
        }
    }

    fn follow_side(&mut self, edge: usize, side: &Beside) {
        match &side.says {
            Says::Edge(record) => self.told_of_drain(edge, record),
            Says::Purge(record) => self.told_of_purge(edge, record),
            Says::Host(record) => {
                if let Key::Host(host) = side.key {
                    self.told_of_host(edge, host, record);
                }
            }
        }
    }

    /// What is on disk counts from the start on.
    pub(crate) fn restore_sides(&mut self, edge: usize) {
        let sides = self.edges[edge].sides.values();
        let sides: Vec<Rc<Beside>> = sides
            .filter_map(|disk| disk.synced().map(Rc::clone))
            .collect();
        for side in sides {
            match &side.says {
                Says::Purge(record) => self.restore_purges(edge, record),
                Says::Edge(_) | Says::Host(_) => self.follow_side(edge, &side),
            }
        }
    }
}
