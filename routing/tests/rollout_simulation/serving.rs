//! What visitors get of an edge, and what it counts of that.

use helix_routing::bake::Window;
use helix_routing::id::Generation;
use helix_routing::report::{Baseline, WindowReport};

use crate::agenda::OnEdge;
use crate::bakes::is_sick;
use crate::dice::Dice;
use crate::edges::{Edge, Gate};
use crate::names::number;
use crate::network::Message;
use crate::roster::boot_id;
use crate::world::World;

const SECOND: u64 = 1_000;

/// What was counted of one release, and since when.
#[derive(Clone)]
pub(crate) struct Count {
    release: u8,
    since: Generation,
    window: Window,
}

#[derive(Default)]
pub(crate) struct Counting {
    live: Option<Count>,
    /// What was live before showed this.
    before: Option<(u8, Window)>,
    /// Of the candidate, while so many percent of the visitors get it.
    canary: Option<(Count, u8)>,
}

impl Counting {
    /// What is live, what was counted of it, and what the release before showed.
    pub(crate) fn seen(&self) -> Option<(u8, &Window, Option<&Window>)> {
        let live = self.live.as_ref()?;
        let before = self.before.as_ref().map(|(_, window)| window);
        Some((live.release, &live.window, before))
    }
}

impl Edge {
    /// What a request that begins now gets.
    pub(crate) fn answers_with(&self, dice: &mut Dice) -> Option<u8> {
        match &self.memory.counting.canary {
            Some((canary, weight)) if dice.roll(100) < u64::from(*weight) => Some(canary.release),
            Some(_) | None => self.memory.live,
        }
    }
}

impl World {
    /// A swap begins new counts, and keeps what the release before showed.
    pub(crate) fn count_anew(&mut self, edge: usize) {
        let memory = &mut self.edges[edge].memory;
        let since = memory.served.live_since;
        let Some(release) = memory.live else { return };
        let counted = memory.counting.live.take();
        match counted {
            Some(count) if count.release == release && count.since == since => {
                memory.counting.live = Some(count);
                return;
            }
            Some(count) if count.release != release => {
                memory.counting.before = Some((count.release, count.window));
            }
            Some(_) | None => {}
        }
        let window = Window::default();
        memory.counting.live = Some(Count {
            release,
            since,
            window,
        });
    }

    /// Counts of a candidate begin with its weight, and again with another one.
    pub(crate) fn count_canary(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        let Some(record) = &this.memory.record else {
            return;
        };
        let record = &record.record;
        let candidate = record
            .candidate
            .as_ref()
            .map(|named| number(&named.release));
        let is_live = record.live.as_ref().map(|live| number(&live.release)) == this.memory.live;
        let has_failed = matches!(this.memory.gate, Gate::Failed(_));
        let parts =
            this.memory.live.is_some() && is_live && !has_failed && this.overriding().is_none();
        let admitted = candidate
            .zip(record.weight)
            .filter(|(candidate, _)| parts && this.memory.held.contains(candidate));
        let held = this.memory.counting.canary.as_ref();
        if held.map(|(count, weight)| (count.release, *weight)) != admitted {
            let since = record.generation;
            this.memory.counting.canary = admitted.map(|(release, weight)| {
                let window = Window::default();
                (
                    Count {
                        release,
                        since,
                        window,
                    },
                    weight,
                )
            });
        }
    }

    /// A second of visitors; one of them is followed to the last byte.
    pub(crate) fn serve(&mut self, edge: usize) {
        self.due_on_edge(SECOND, edge, OnEdge::Serve);
        self.guard(edge);
        self.visit_page(edge);
        let requests = self.dice.roll(if self.scenario.is_quiet { 3 } else { 60 });
        let this = &mut self.edges[edge];
        let counting = &mut this.memory.counting;
        let canary = counting.canary.iter_mut().map(|(count, _)| count);
        for count in counting.live.iter_mut().chain(canary) {
            for _ in 0..requests {
                count.window.add(is_sick(count.release), 1_000);
            }
            let key = (this.region, count.release, count.since);
            *self.notes.answered.entry(key).or_default() += requests;
        }
        if this.memory.told_until > self.now {
            self.tell_windows(edge);
        }
        let this = &self.edges[edge];
        let shown = self
            .dice
            .one_in(4)
            .then(|| this.answers_pinned(&mut self.dice));
        let shown = shown.flatten();
        if shown.is_some() {
            self.counts.count("a visitor got what is pinned");
        }
        let got = shown.or_else(|| this.answers_with(&mut self.dice));
        if let Some(pinned) = got {
            self.check_request(edge, pinned);
            self.edges[edge].memory.in_flight.push(pinned);
            let millis = self.dice.between(20, 6_000);
            self.due_on_edge(millis, edge, OnEdge::Answered { pinned });
        }
    }

    /// The last byte of a request.
    pub(crate) fn answered(&mut self, edge: usize, pinned: u8) {
        self.check_answered(edge, pinned);
        let in_flight = &mut self.edges[edge].memory.in_flight;
        if let Some(place) = in_flight.iter().position(|one| *one == pinned) {
            in_flight.swap_remove(place);
        }
    }

    fn tell_windows(&mut self, edge: usize) {
        let this = &self.edges[edge];
        let counting = &this.memory.counting;
        let baseline = |release: u8, window: &Window| Baseline {
            release: self.names.releases[usize::from(release)].release.clone(),
            window: window.clone(),
        };
        let before = counting.before.as_ref();
        let before = before.map(|(release, window)| baseline(*release, window));
        let beside = counting.live.as_ref();
        let beside = beside.map(|count| baseline(count.release, &count.window));
        let live = counting.live.iter().map(|count| (count, before.clone()));
        let canary = counting
            .canary
            .iter()
            .map(|(count, _)| (count, beside.clone()));
        let report = |(count, baseline): (&Count, _)| WindowReport {
            edge: self.names.edges[edge].clone(),
            region: self.names.regions[this.region].clone(),
            boot: boot_id(this.boot),
            site: self.names.site.clone(),
            release: self.names.releases[usize::from(count.release)]
                .release
                .clone(),
            live_since: count.since,
            window: count.window.clone(),
            baseline,
        };
        let reports: Vec<WindowReport> = live.chain(canary).map(report).collect();
        for report in reports {
            let report = Box::new(report);
            self.send(Message::Window { edge, report });
        }
    }
}
