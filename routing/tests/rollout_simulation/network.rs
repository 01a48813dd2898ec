//! The network: it delays, drops, repeats and reorders, between whom it likes.

use std::rc::Rc;

use helix_routing::glass::LocalReport;
use helix_routing::report::{SiteReport, WindowReport};
use helix_routing::rollout::Event;

use crate::agenda::Due;
use crate::publisher::Published;
use crate::sides::Beside;
use crate::world::World;

/// Usually it takes at most so many milliseconds.
const USUAL: u64 = 40;
/// And seldom so many.
const LATEST: u64 = 30_000;

#[derive(Clone)]
pub(crate) enum Message {
    Record {
        edge: usize,
        record: Rc<Published>,
    },
    Heartbeat {
        edge: usize,
        boot: u32,
        is_ready: bool,
        sent: u64,
    },
    Report {
        edge: usize,
        boot: u32,
        report: SiteReport,
    },
    Window {
        edge: usize,
        report: Box<WindowReport>,
    },
    Side {
        edge: usize,
        side: Rc<Beside>,
    },
    /// What an edge overrides, if it does.
    Local {
        edge: usize,
        boot: u32,
        sent: u64,
        report: Box<LocalReport>,
    },
    /// What a probe saw, or what Prometheus said, for the driver that asked.
    Heard {
        origin: usize,
        life: u32,
        rollout: u64,
        event: Event,
    },
}

impl Message {
    /// The edge at one end of it.
    const fn edge(&self) -> Option<usize> {
        match self {
            Self::Record { edge, .. }
            | Self::Heartbeat { edge, .. }
            | Self::Report { edge, .. }
            | Self::Local { edge, .. }
            | Self::Side { edge, .. }
            | Self::Window { edge, .. } => Some(*edge),
            Self::Heard { .. } => None,
        }
    }
}

impl World {
    pub(crate) fn send(&mut self, message: Message) {
        let weather = self.scenario.weather;
        if self.is_healed {
            let millis = self.dice.between(1, USUAL);
            return self.due(millis, Due::Arrival(Box::new(message)));
        }
        if self.is_cut(&message) || (weather.lost > 0 && self.dice.one_in(weather.lost)) {
            return;
        }
        if weather.repeated > 0 && self.dice.one_in(weather.repeated) {
            let millis = self.dice.between(1, LATEST);
            self.due(millis, Due::Arrival(Box::new(message.clone())));
        }
        let is_late = weather.late > 0 && self.dice.one_in(weather.late);
        let longest = match (is_late, self.dice.roll(4)) {
            (false, _) => USUAL,
            (true, 0) => LATEST,
            (true, _) => USUAL * 40,
        };
        let millis = self.dice.between(1, longest);
        self.due(millis, Due::Arrival(Box::new(message)));
    }

    fn is_cut(&self, message: &Message) -> bool {
        let edge = message.edge().map(|edge| &self.edges[edge]);
        edge.is_some_and(|edge| edge.cut_until > self.now)
    }

    pub(crate) fn deliver(&mut self, message: Message) {
        if self.is_cut(&message) {
            return;
        }
        match message {
            Message::Record { edge, record } => {
                if self.edges[edge].deaf_until <= self.now {
                    self.receive(edge, &record);
                }
            }
            Message::Heartbeat {
                edge,
                boot,
                is_ready,
                sent,
            } => {
                for origin in self.listening() {
                    self.heard_heartbeat(origin, edge, (boot, is_ready, sent));
                }
            }
            Message::Report { edge, boot, report } => {
                self.counts.came_late(boot < self.edges[edge].boot);
                let event = Event::Reported(report);
                for origin in self.listening() {
                    self.tell(origin, event.clone());
                }
            }
            Message::Side { edge, side } => {
                if self.edges[edge].deaf_until <= self.now {
                    self.receive_side(edge, &side);
                }
            }
            Message::Local {
                edge,
                boot,
                sent,
                report,
            } => {
                for origin in self.listening() {
                    self.heard_local(origin, edge, (boot, sent), (*report).clone());
                }
            }
            Message::Window { report, .. } => {
                let event = Event::Measured(report);
                for origin in self.listening() {
                    self.tell(origin, event.clone());
                }
            }
            Message::Heard {
                origin,
                life,
                rollout,
                event,
            } => {
                let process = &self.origins[origin];
                let driver = process.driver.as_ref();
                let is_its = driver.is_some_and(|driver| driver.saved.number == rollout);
                if process.is_up && process.life == life && is_its {
                    self.tell(origin, event);
                }
            }
        }
    }

    /// Whoever believes that it leads hears what edges say.
    fn listening(&self) -> impl Iterator<Item = usize> + use<> {
        let leads = [0, 1].map(|origin: usize| {
            let process = &self.origins[origin];
            process.is_up && process.leads
        });
        [0, 1]
            .into_iter()
            .filter(move |origin: &usize| leads[*origin])
    }
}
