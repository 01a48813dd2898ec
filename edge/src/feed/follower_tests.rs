//! The follower against a model of a stream behind a pipe that loses, repeats, reorders and rolls back.

use std::collections::BTreeMap as Map;

use proptest::prelude::*;

use super::*;

fn life(n: u64) -> Incarnation {
    format!("{n:016x}").parse().unwrap()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn head(incarnation: u64, last_sequence: u64, millis: u64) -> Event<u64> {
    Event::Beacon(Head {
        incarnation: life(incarnation),
        epoch: Epoch(1),
        last_sequence,
        snapshot: 0,
        at: at(millis),
    })
}

fn message(sequence: u64) -> Event<u64> {
    Event::Message {
        sequence,
        message: sequence,
    }
}

fn page(sequences: &[u64], more: bool) -> Event<u64> {
    let mut previous = 0;
    let entries = sequences
        .iter()
        .map(|&sequence| Entry {
            sequence,
            previous: std::mem::replace(&mut previous, sequence),
            message: sequence,
        })
        .collect();
    Event::Page(Page {
        entries,
        ended_at: Some(previous),
        more,
    })
}

/// A follower that has reached sequence 5.
fn following() -> Follower<u64> {
    let mut follower = Follower::new(at(0), Some((life(1), 5)));
    assert_eq!(follower.step(at(10), head(1, 5, 10)), []);
    assert!(follower.caught_up() && follower.is_following());
    follower
}

#[test]
fn the_next_record_is_applied_and_an_old_one_is_not() {
    let mut follower = following();
    assert_eq!(
        follower.step(at(20), message(6)),
        [Command::Apply(vec![(6, 6)])]
    );
    assert_eq!(follower.step(at(21), message(6)), []);
    assert_eq!(follower.step(at(22), message(3)), []);
}

#[test]
fn a_start_that_is_far_behind_takes_over_the_snapshot_and_one_that_is_not_repairs() {
    for (snapshot, resyncs) in [(0, false), (20_005, false), (20_006, true)] {
        let mut follower = Follower::<u64>::new(at(0), Some((life(1), 5)));
        let Event::Beacon(head) = head(1, 30_000, 10) else {
            unreachable!("a head is a beacon")
        };
        let commands = follower.step(at(10), Event::Beacon(Head { snapshot, ..head }));
        let expected = if resyncs {
            Command::Resync {
                incarnation: life(1),
            }
        } else {
            Command::Repair { from: 6 }
        };
        assert_eq!(commands, [expected], "snapshot {snapshot}");
    }
}

#[test]
fn a_gap_is_repaired_and_what_came_meanwhile_follows() {
    let mut follower = following();
    assert_eq!(
        follower.step(at(20), message(8)),
        [Command::Repair { from: 6 }]
    );
    assert_eq!(follower.step(at(21), message(9)), []);
    assert_eq!(
        follower.step(at(22), page(&[6, 7, 8], false)),
        [Command::Apply(vec![(6, 6), (7, 7), (8, 8), (9, 9)])]
    );
    assert!(follower.is_following());
}

#[test]
fn a_page_with_a_hole_counts_up_to_it_and_is_asked_for_again() {
    let mut follower = following();
    follower.step(at(20), message(9));
    let entries = [(6, 0), (8, 7)].map(|(sequence, previous)| Entry {
        sequence,
        previous,
        message: sequence,
    });
    let torn = Event::Page(Page {
        entries: entries.to_vec(),
        ended_at: Some(8),
        more: false,
    });
    assert_eq!(follower.step(at(21), torn), [Command::Apply(vec![(6, 6)])]);
    assert_eq!(
        follower.step(at(21) + FIRST_RETRY, Event::Tick),
        [Command::Repair { from: 7 }]
    );
}

#[test]
fn a_page_whose_end_was_lost_is_asked_for_again() {
    let mut follower = following();
    follower.step(at(20), message(9));
    let mut torn = page(&[6, 7], false);
    if let Event::Page(page) = &mut torn {
        page.ended_at = Some(9);
    }
    assert_eq!(
        follower.step(at(21), torn),
        [Command::Apply(vec![(6, 6), (7, 7)])]
    );
    assert!(!follower.is_following());
}

#[test]
fn a_start_without_state_takes_over_the_stream_that_the_beacon_names() {
    let mut follower: Follower<u64> = Follower::new(at(0), None);
    assert_eq!(follower.step(at(5), message(7)), []);
    assert_eq!(follower.step(at(2000), Event::Tick), []);
    assert_eq!(
        follower.step(at(2001), head(4, 9, 2001)),
        [Command::Resync {
            incarnation: life(4)
        }]
    );
    let taken = Event::Resynced {
        incarnation: life(4),
        at: 8,
    };
    assert_eq!(
        follower.step(at(2002), taken),
        [Command::Repair { from: 9 }]
    );
    assert_eq!(
        follower.step(at(2003), page(&[9], false)),
        [Command::Apply(vec![(9, 9)])]
    );
    assert!(follower.caught_up());
}

#[test]
fn a_start_without_a_beacon_repairs_from_what_is_on_disk() {
    let mut follower: Follower<u64> = Follower::new(at(0), Some((life(1), 5)));
    assert_eq!(follower.step(at(100), Event::Tick), []);
    assert_eq!(
        follower.step(at(0) + FIRST_BEACON_WAIT, Event::Tick),
        [Command::Repair { from: 6 }]
    );
}

#[test]
fn another_life_of_the_stream_is_taken_over() {
    let mut follower = following();
    assert_eq!(
        follower.step(at(1000), head(2, 900, 1000)),
        [Command::Resync {
            incarnation: life(2)
        }]
    );
}

#[test]
fn a_beacon_of_an_earlier_life_sent_again_changes_nothing() {
    let mut follower = following();
    follower.step(at(1000), head(2, 3, 1000));
    follower.step(
        at(1001),
        Event::Resynced {
            incarnation: life(2),
            at: 3,
        },
    );
    follower.step(at(1002), page(&[], false));
    assert_eq!(follower.step(at(1100), head(1, 5, 10)), []);
    assert_eq!(follower.incarnation(), Some(&life(2)));
}

#[test]
fn a_stream_that_lost_its_end_is_taken_over_at_the_second_beacon() {
    let mut follower = following();
    assert_eq!(follower.step(at(1000), head(1, 3, 1000)), []);
    assert_eq!(
        follower.step(at(2000), head(1, 3, 2000)),
        [Command::Resync {
            incarnation: life(1)
        }]
    );
}

#[test]
fn a_beacon_written_just_before_a_record_is_no_rollback() {
    let mut follower = following();
    follower.step(at(20), message(6));
    assert_eq!(follower.step(at(21), head(1, 5, 21)), []);
    assert_eq!(follower.step(at(1021), head(1, 6, 1021)), []);
}

#[test]
fn a_beacon_ahead_of_us_is_a_gap_only_when_it_stays_ahead() {
    let mut follower = following();
    assert_eq!(follower.step(at(1000), head(1, 6, 1000)), []);
    assert_eq!(follower.step(at(1050), Event::Tick), []);
    assert_eq!(
        follower.step(at(1101), Event::Tick),
        [Command::Repair { from: 6 }]
    );
    let mut follower = following();
    follower.step(at(1000), head(1, 6, 1000));
    follower.step(at(1001), message(6));
    assert_eq!(follower.step(at(1101), Event::Tick), []);
}

#[test]
fn silence_is_staleness_and_a_new_link_less_and_less_often() {
    let mut follower = following();
    assert_eq!(follower.step(at(3000), Event::Tick), []);
    assert!(!follower.stale());
    assert_eq!(follower.step(at(3011), Event::Tick), [Command::Reconnect]);
    assert!(follower.stale());
    assert_eq!(follower.step(at(4000), Event::Tick), []);
    assert_eq!(follower.step(at(9100), Event::Tick), [Command::Reconnect]);
    assert_eq!(follower.step(at(9200), head(1, 5, 9200)), []);
    assert!(!follower.stale());
}

#[test]
fn a_hole_at_the_end_of_the_stream_is_passed_after_it_was_asked_for_long_enough() {
    let mut follower: Follower<u64> = Follower::new(at(0), Some((life(1), 5)));
    let mut now = at(10);
    let mut commands = follower.step(now, head(1, 8, 10));
    for _ in 0..=LAG_ATTEMPTS {
        assert_eq!(commands, [Command::Repair { from: 6 }]);
        assert_eq!(follower.step(now, page(&[], false)), []);
        now = now + MAX_RETRY;
        commands = follower.step(now, Event::Tick);
        commands.retain(|command| *command != Command::Reconnect);
    }
    assert!(follower.is_following());
    assert_eq!(
        follower.step(now, message(9)),
        [Command::Apply(vec![(9, 9)])]
    );
}

#[test]
fn a_new_link_is_followed_by_a_repair() {
    let mut follower = following();
    assert_eq!(
        follower.step(at(20), Event::Connected),
        [Command::Repair { from: 6 }]
    );
}

/// What the pipe and the world do.
#[derive(Clone, Debug)]
enum Act {
    Write(u8),
    Marker(u8),
    Deliver,
    Lose,
    Repeat,
    Reorder,
    Answer {
        lose: u8,
    },
    FailAnswer,
    Beacon,
    Time(u16),
    Restart,
    /// The stream loses its newest records, and origin publishes them again in a new life.
    Wipe,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0_u8..8).prop_map(Act::Write),
        1 => (0_u8..8).prop_map(Act::Marker),
        6 => Just(Act::Deliver),
        2 => Just(Act::Lose),
        1 => Just(Act::Repeat),
        1 => Just(Act::Reorder),
        4 => (0_u8..6).prop_map(|lose| Act::Answer { lose }),
        1 => Just(Act::FailAnswer),
        2 => Just(Act::Beacon),
        2 => (1_u16..4000).prop_map(Act::Time),
        1 => Just(Act::Restart),
        1 => Just(Act::Wipe),
    ];
    proptest::collection::vec(act, 0..200)
}

/// A stream that keeps the newest record of each key, a pipe, and the follower at its end.
struct World {
    now: u64,
    life: u64,
    last: u64,
    /// Key to (sequence, version).
    stream: Map<u8, (u64, u64)>,
    versions: u64,
    pipe: Vec<(u64, u64, (u8, u64))>,
    asked: Option<u64>,
    resync: Option<Incarnation>,
    follower: Follower<(u8, u64)>,
    /// What the edge holds: key to version.
    held: Map<u8, u64>,
    disk: (Option<Incarnation>, u64),
}

impl World {
    fn new() -> Self {
        Self {
            now: 0,
            life: 1,
            last: 0,
            stream: Map::new(),
            versions: 0,
            pipe: Vec::new(),
            asked: None,
            resync: None,
            follower: Follower::new(at(0), None),
            held: Map::new(),
            disk: (None, 0),
        }
    }

    fn write(&mut self, key: u8, version: u64) {
        self.last += 1;
        self.stream.insert(key, (self.last, version));
        self.pipe.push((self.life, self.last, (key, version)));
    }

    fn step(&mut self, event: Event<(u8, u64)>) {
        for command in self.follower.step(at(self.now), event) {
            match command {
                Command::Apply(messages) => {
                    for (sequence, (key, version)) in messages {
                        let held = self.held.entry(key).or_default();
                        *held = version.max(*held);
                        self.disk = (self.follower.incarnation().cloned(), sequence);
                    }
                }
                Command::Repair { from } => self.asked = Some(from),
                Command::Resync { incarnation } => {
                    self.resync = Some(incarnation);
                    self.asked = None;
                }
                Command::Reconnect => {}
            }
        }
    }

    fn answer(&mut self, lose: u8) {
        if let Some(incarnation) = self.resync.take() {
            // No snapshot: the stream is read from its start.
            let event = if incarnation == life(self.life) {
                self.disk = (Some(incarnation.clone()), 0);
                Event::Resynced { incarnation, at: 0 }
            } else {
                Event::ResyncFailed
            };
            return self.step(event);
        }
        let Some(from) = self.asked.take() else {
            return;
        };
        let mut stored: Vec<(u64, (u8, u64))> = self
            .stream
            .iter()
            .map(|(key, (sequence, version))| (*sequence, (*key, *version)))
            .collect();
        stored.sort_unstable();
        stored.retain(|(sequence, _)| *sequence >= from);
        let more = stored.len() > 3;
        stored.truncate(3);
        let mut previous = 0;
        let mut entries: Vec<Entry<(u8, u64)>> = stored
            .into_iter()
            .map(|(sequence, message)| Entry {
                sequence,
                previous: std::mem::replace(&mut previous, sequence),
                message,
            })
            .collect();
        if usize::from(lose) < entries.len() {
            entries.remove(usize::from(lose));
        }
        self.step(Event::Page(Page {
            entries,
            ended_at: Some(previous),
            more,
        }));
    }

    fn beacon(&mut self) {
        let head = Head {
            incarnation: life(self.life),
            epoch: Epoch(1),
            last_sequence: self.last,
            snapshot: 0,
            at: at(self.now),
        };
        self.step(Event::Beacon(head));
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Write(key) | Act::Marker(key) => {
                self.versions += 1;
                self.write(key, self.versions);
            }
            Act::Deliver if !self.pipe.is_empty() => {
                let (of, sequence, message) = self.pipe.remove(0);
                // A record of another life does not verify.
                if Some(&life(of)) == self.follower.incarnation()
                    || self.follower.incarnation().is_none()
                {
                    self.step(Event::Message { sequence, message });
                }
            }
            Act::Lose if !self.pipe.is_empty() => {
                self.pipe.remove(0);
            }
            Act::Repeat if !self.pipe.is_empty() => self.pipe.push(self.pipe[0]),
            Act::Reorder if self.pipe.len() > 1 => self.pipe.swap(0, 1),
            Act::Answer { lose } => self.answer(lose),
            Act::FailAnswer => {
                self.asked = None;
                self.step(Event::PageFailed);
                self.step(Event::Connected);
            }
            Act::Beacon => self.beacon(),
            Act::Time(millis) => {
                self.now += u64::from(millis);
                self.step(Event::Tick);
            }
            Act::Restart => {
                let position = self.disk.0.clone().map(|life| (life, self.disk.1));
                self.follower = Follower::new(at(self.now), position);
                self.asked = None;
                self.resync = None;
            }
            Act::Wipe => {
                self.now += 1;
                self.life += 1;
                self.last = 0;
                self.pipe.clear();
                let records: Vec<(u8, u64)> = self
                    .stream
                    .iter()
                    .map(|(key, (_, version))| (*key, *version))
                    .collect();
                self.stream.clear();
                for (key, version) in records {
                    self.write(key, version);
                }
            }
            Act::Deliver | Act::Lose | Act::Repeat | Act::Reorder => {}
        }
    }
}

proptest! {
    #[test]
    fn once_the_pipe_heals_everything_is_held(acts in acts()) {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
        }
        for _ in 0..200 {
            world.now += 1000;
            world.beacon();
            world.act(&Act::Answer { lose: u8::MAX });
            world.step(Event::Tick);
            world.act(&Act::Deliver);
        }
        prop_assert!(world.follower.is_following());
        prop_assert_eq!(world.follower.last(), world.last);
        let stream: Map<u8, u64> = world.stream.iter().map(|(key, (_, version))| (*key, *version)).collect();
        prop_assert_eq!(&world.held, &stream);
    }

    #[test]
    fn while_following_nothing_below_the_position_is_missing(acts in acts()) {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
            if world.follower.incarnation() == Some(&life(world.life)) && world.resync.is_none() {
                let last = world.follower.last();
                for (key, (sequence, version)) in &world.stream {
                    let held = world.held.get(key).copied().unwrap_or_default();
                    prop_assert!(*sequence > last || held >= *version, "key {key} at {sequence} is missing at {last}");
                }
            }
        }
    }
}
