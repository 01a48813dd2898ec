//! A driver, as origin's own: event, step, save, act. While it saves, what happens waits in its inbox.

use std::collections::{BTreeMap, VecDeque};

use helix_routing::api::PhaseName;
use helix_routing::id::Generation;
use helix_routing::rollout::{Command, Control, Event, Rollout};
use helix_routing::time::Timestamp;

use crate::agenda::InOrigin;
use crate::checks::Check;
use crate::origins::LOOK;
use crate::publisher::Published;
use crate::scenario::{Safeguard, Side, When};
use crate::sql::{Answer, Change, Saved, Step};
use crate::world::World;

/// One task for one rollout.
pub(crate) struct Driver {
    pub(crate) saved: Saved,
    pub(crate) is_saving: bool,
    inbox: VecDeque<Input>,
    /// By edge, so that a newer probe replaces the older.
    pub(crate) probing: BTreeMap<usize, Generation>,
    wake_at: u64,
    phases: Vec<PhaseName>,
}

enum Input {
    Event(Event),
    Control(Control),
}

impl Driver {
    fn new(saved: Saved) -> Self {
        Self {
            phases: saved.machine.phases().map(|(_, phase)| phase).collect(),
            saved,
            is_saving: false,
            inbox: VecDeque::new(),
            probing: BTreeMap::new(),
            wake_at: u64::MAX,
        }
    }
}

impl World {
    /// Reads the rollout from SQL, and asks every edge again.
    pub(crate) fn resume(&mut self, origin: usize) {
        self.begin_deadlines_anew();
        self.origins[origin].driver = None;
        let Some(saved) = self.sql.running.clone() else {
            return;
        };
        let machine = self.read_back(&saved.machine);
        let mut driver = Driver::new(Saved { machine, ..saved });
        let (now, fleet) = (
            self.origins[origin].clock.read(self.now),
            self.fleet(origin),
        );
        let epoch = self.origins[origin].epoch;
        let commands = driver.saved.machine.resume(epoch, now, &fleet);
        self.check_repeated(&driver.saved.machine, (epoch, now, &fleet));
        self.origins[origin].driver = Some(driver);
        self.took_step(origin, commands, None);
    }

    /// What is saved of a machine is all of it.
    fn read_back(&mut self, machine: &Rollout) -> Rollout {
        let text = serde_json::to_string(machine).unwrap();
        let read: Rollout = serde_json::from_str(&text).unwrap();
        if read != *machine {
            self.fail(
                Check::NothingLost,
                format!("saved {machine:?}, read {read:?}"),
            );
        }
        read
    }

    pub(crate) fn tell(&mut self, origin: usize, event: Event) {
        self.take(origin, Input::Event(event));
    }

    pub(crate) fn control(&mut self, origin: usize, control: Control) {
        self.take(origin, Input::Control(control));
    }

    fn take(&mut self, origin: usize, input: Input) {
        let Some(driver) = &mut self.origins[origin].driver else {
            return;
        };
        if driver.is_saving {
            driver.inbox.push_back(input);
            return;
        }
        match input {
            Input::Event(event) => {
                let (now, fleet) = (
                    self.origins[origin].clock.read(self.now),
                    self.fleet(origin),
                );
                if let Some(driver) = &mut self.origins[origin].driver {
                    let commands = driver.saved.machine.step(now, &fleet, &event);
                    self.took_step(origin, commands, None);
                }
            }
            Input::Control(control) => self.press(origin, control),
        }
    }

    /// Somebody asks something of the machine; whoever asked is told.
    fn press(&mut self, origin: usize, control: Control) {
        let (now, fleet) = (
            self.origins[origin].clock.read(self.now),
            self.fleet(origin),
        );
        let Some(driver) = &mut self.origins[origin].driver else {
            return;
        };
        let before = driver.saved.machine.clone();
        let answer = driver.saved.machine.control(now, &fleet, "ana", &control);
        let after = driver.saved.machine.clone();
        self.check_control(&control, &before, &after, answer.is_ok());
        if let Ok(commands) = answer
            && before != after
        {
            self.took_step(origin, commands, Some(control));
        }
    }

    /// Saves a step when it has to be, then acts on it.
    fn took_step(&mut self, origin: usize, commands: Vec<Command>, control: Option<Control>) {
        self.check_step(origin, &commands);
        let Some(driver) = &mut self.origins[origin].driver else {
            return;
        };
        if commands.iter().any(Command::is_durable) {
            driver.is_saving = true;
            let saved = driver.saved.clone();
            if self.without == Some(Safeguard::PersistBeforeAct) {
                self.act_unsaved(origin, &commands);
            }
            let step = Step {
                saved,
                commands,
                control,
                is_repeated: false,
            };
            self.transact(origin, Change::Step(Box::new(step)));
        } else {
            self.act(origin, commands);
        }
        self.plan_wake(origin);
    }

    /// It overtakes what was on its way.
    fn act_unsaved(&mut self, origin: usize, commands: &[Command]) {
        self.origins[origin].publisher.sending = None;
        for command in commands {
            if let Command::Write(record) = command
                && self.writes_to(origin, self.names.region(&record.region))
            {
                self.append(Published::new(record.clone()));
            }
        }
    }

    /// What became of a transaction of this origin.
    pub(crate) fn saved(&mut self, origin: usize, answer: Answer) {
        match answer {
            Answer::Done {
                save,
                change: Change::Step(step),
            } => {
                self.saved_step(origin, step);
                self.at_moment(When::Save(save, Side::After));
            }
            Answer::Done {
                change: Change::Adopt { .. },
                ..
            } => self.was_adopted(origin),
            Answer::Done {
                change: Change::Drain { .. },
                ..
            } => {
                self.read_drains(origin);
                self.publish_unsent(origin);
            }
            Answer::Done { .. } => self.publish_unsent(origin),
            Answer::Started { saved, commands } => self.launch(origin, *saved, commands),
            Answer::Fenced => self.fence(origin),
            Answer::Changed {
                rollout,
                is_repeated,
            } => self.reload(origin, rollout, is_repeated),
            Answer::Unsure {
                change: Change::Step(mut step),
            } => {
                step.is_repeated = true;
                self.counts.count("a save was tried again");
                self.transact(origin, Change::Step(step));
            }
            Answer::Unsure { .. } => {}
        }
    }

    /// Two that start at once may be answered in either order: the newer has superseded the other.
    fn launch(&mut self, origin: usize, saved: Saved, commands: Vec<Command>) {
        self.publish_unsent(origin);
        let running = self.origins[origin].driver.as_ref();
        if running.is_some_and(|running| running.saved.number > saved.number) {
            return;
        }
        let is_over = saved.machine.outcome().is_some();
        self.origins[origin].driver = (!is_over).then(|| Driver::new(saved));
        self.act(origin, commands);
        self.plan_wake(origin);
    }

    fn saved_step(&mut self, origin: usize, step: Box<Step>) {
        let Some(driver) = &mut self.origins[origin].driver else {
            return;
        };
        if driver.saved.number != step.saved.number {
            return;
        }
        driver.saved.revision = step.saved.revision;
        driver.is_saving = false;
        let is_over = driver.saved.machine.outcome().is_some();
        self.publish_unsent(origin);
        if is_over {
            self.origins[origin].driver = None;
        } else {
            self.act(origin, step.commands);
            self.go_on(origin);
        }
    }

    /// Takes what came while it was saving.
    fn go_on(&mut self, origin: usize) {
        while let Some(driver) = &mut self.origins[origin].driver
            && !driver.is_saving
            && let Some(input) = driver.inbox.pop_front()
        {
            self.take(origin, input);
        }
    }

    /// What the driver has in its memory is not what is saved. Where that is over, or another rollout's, it ends.
    fn reload(&mut self, origin: usize, rollout: u64, is_repeated: bool) {
        self.counts.count(if is_repeated {
            "a save was there already"
        } else {
            "a save came after a change by somebody else"
        });
        let driver = self.origins[origin].driver.as_mut();
        let Some(driver) = driver.filter(|driver| driver.saved.number == rollout) else {
            return;
        };
        let running = self.sql.running.clone();
        match running.filter(|running| running.number == rollout) {
            None => self.origins[origin].driver = None,
            Some(_) if is_repeated => self.resume(origin),
            Some(running) => {
                driver.phases = running.machine.phases().map(|(_, phase)| phase).collect();
                driver.saved = running;
                driver.is_saving = false;
                self.plan_wake(origin);
                self.go_on(origin);
            }
        }
    }

    pub(crate) fn wake(&mut self, origin: usize, at: u64) {
        if let Some(driver) = &mut self.origins[origin].driver
            && driver.wake_at == at
        {
            driver.wake_at = u64::MAX;
            self.tell(origin, Event::Tick);
            self.plan_wake(origin);
        }
    }

    /// A tick at the machine's deadline, by a clock that may be wrong.
    fn plan_wake(&mut self, origin: usize) {
        let now = self.origins[origin].clock.read(self.now);
        let Some(driver) = &mut self.origins[origin].driver else {
            return;
        };
        let wait = |at: Timestamp| u64::try_from(at.since(now).as_millis()).unwrap();
        let wait = driver.saved.machine.deadline().map_or(LOOK, wait).max(1);
        let at = self.now + wait;
        if at < driver.wake_at {
            driver.wake_at = at;
            self.due_in_origin(wait, origin, InOrigin::Wake { at });
        }
    }

    /// The phases that it was in before this step, and from now on those after it.
    pub(crate) fn swap_phases(&mut self, origin: usize) -> Option<(Vec<PhaseName>, Rollout)> {
        let driver = self.origins[origin].driver.as_mut()?;
        let same = driver.saved.machine.phases().map(|(_, phase)| phase);
        if same.eq(driver.phases.iter().copied()) {
            return None;
        }
        let after = driver
            .saved
            .machine
            .phases()
            .map(|(_, phase)| phase)
            .collect();
        let before = std::mem::replace(&mut driver.phases, after);
        Some((before, driver.saved.machine.clone()))
    }
}
