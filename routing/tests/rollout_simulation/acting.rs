//! What a driver does after a save: it publishes again, probes edges, and asks Prometheus.

use helix_routing::bake::Number;
use helix_routing::id::{Generation, RegionId};
use helix_routing::rollout::{Command, Event};

use crate::agenda::{Due, InOrigin};
use crate::network::Message;
use crate::world::World;

const PROBE_PAUSE: u64 = 200;

impl World {
    pub(crate) fn act(&mut self, origin: usize, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Republish { region } => self.publish(origin, self.names.region(&region)),
                Command::Probe {
                    edge, generation, ..
                } => {
                    let edge = self.names.edge(&edge);
                    let Some(driver) = &mut self.origins[origin].driver else {
                        continue;
                    };
                    if driver.probing.insert(edge, generation) != Some(generation) {
                        self.due_in_origin(1, origin, InOrigin::Probe { edge, generation });
                    }
                }
                Command::Ask { region, check, .. } => self.ask(origin, region, check),
                // Done in the transaction.
                Command::Write(_)
                | Command::Settle { .. }
                | Command::Bake { .. }
                | Command::Return { .. }
                | Command::Withdraw { .. }
                | Command::Plan
                | Command::Finish(_) => {}
            }
        }
    }

    /// Asks through the edge which release answers, until it is of this generation.
    pub(crate) fn probe(&mut self, origin: usize, edge: usize, generation: Generation) {
        let life = self.origins[origin].life;
        let Some(driver) = &mut self.origins[origin].driver else {
            return;
        };
        if driver.probing.get(&edge) != Some(&generation) {
            return;
        }
        let seen = &self.edges[edge];
        let is_seen = seen.is_up && seen.cut_until <= self.now && seen.serving() >= generation;
        let (true, Some(release)) = (is_seen, seen.answers_with(&mut self.dice)) else {
            return self.due_in_origin(PROBE_PAUSE, origin, InOrigin::Probe { edge, generation });
        };
        driver.probing.remove(&edge);
        let rollout = driver.saved.number;
        let event = Event::Proved {
            region: self.names.regions[seen.region].clone(),
            edge: self.names.edges[edge].clone(),
            generation: seen.serving(),
            release: self.names.releases[usize::from(release)].release.clone(),
        };
        // It is said once, and may lie in the inbox for a while.
        let millis = self.dice.between(1, 20);
        let millis = if self.dice.one_in(8) {
            millis * 100
        } else {
            millis
        };
        let heard = Message::Heard {
            origin,
            life,
            rollout,
            event,
        };
        self.due(millis, Due::Arrival(Box::new(heard)));
    }

    /// Prometheus is asked: some of its answers are errors, and some never come.
    pub(crate) fn ask(&mut self, origin: usize, region: RegionId, check: usize) {
        let answer = match self.dice.roll(30) {
            _ if self.notes.is_unanswered => Err("no answer".to_owned()),
            0 => Ok(Number(9.0)),
            1..10 => Err("no answer".to_owned()),
            _ => Ok(Number(1.0)),
        };
        self.notes.has_bad_answer |= matches!(answer, Ok(number) if number.0 > 1.0);
        let event = Event::Answered {
            region,
            check,
            answer,
        };
        let process = &self.origins[origin];
        let Some(driver) = &process.driver else {
            return;
        };
        let (life, rollout) = (process.life, driver.saved.number);
        self.send(Message::Heard {
            origin,
            life,
            rollout,
            event,
        });
    }
}
