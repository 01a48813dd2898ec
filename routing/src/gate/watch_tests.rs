//! One gate, driven by hand and at random.

use proptest::prelude::*;

use super::*;
use crate::routes::Span;

const T: Timing = Timing {
    interval: Span::from_millis(1000),
    timeout: Span::from_millis(2000),
    rise: 3,
    fall: None,
    initial_delay: Span::from_millis(0),
    deadline: Span::from_millis(10_000),
};

const fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Drives a gate whose probes each take a moment and show `outcomes` in turn; an absent one is never answered.
/// What it ends with, when, and after how many probes.
fn run(timing: Timing, outcomes: &[Option<Outcome>]) -> (Verdict, u64, u32) {
    let (verdict, ended, asked) = run_spread(timing, Spread::none(), outcomes);
    (verdict, ended, u32::try_from(asked.len()).unwrap())
}

/// The same with its probes spread; when each was started.
fn run_spread(
    timing: Timing,
    spread: Spread,
    outcomes: &[Option<Outcome>],
) -> (Verdict, u64, Vec<u64>) {
    const TOOK: u64 = 10;
    let mut watch = Watch::new(timing, spread, at(0));
    let mut asked = Vec::new();
    let (mut now, mut answer) = (0, None::<(u64, u32, Outcome)>);
    let mut commands = watch.step(at(0), Event::Tick);
    loop {
        for command in commands {
            match command {
                Command::Ask { probe } => {
                    asked.push(now);
                    let outcome = outcomes.get(probe as usize - 1).copied().flatten();
                    answer = outcome.map(|outcome| (now + TOOK, probe, outcome));
                }
                Command::GiveUp { .. } => answer = None,
                Command::Conclude(verdict) => {
                    assert_eq!(asked.len(), watch.probes() as usize);
                    return (verdict, now, asked);
                }
            }
        }
        let due = watch.due().expect("it is not over").as_millis();
        commands = match answer {
            Some((when, probe, outcome)) if when <= due => {
                (now, answer) = (when, None);
                watch.step(at(now), Event::Answered { probe, outcome })
            }
            _ => {
                now = due;
                watch.step(at(now), Event::Tick)
            }
        };
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_gate_ends_as_its_answers_say() {
    const GOOD: Option<Outcome> = Some(Outcome::Good);
    const BAD: Option<Outcome> = Some(Outcome::Bad);
    const ERROR: Option<Outcome> = Some(Outcome::Error);
    const NEVER: Option<Outcome> = Some(Outcome::Impossible);
    let fall = Timing { fall: Some(2), ..T };
    let slow = Timing {
        initial_delay: Span::from_millis(500),
        ..T
    };
    let short = Timing {
        deadline: Span::from_millis(2500),
        ..T
    };
    for (what, timing, outcomes, expected) in [
        (
            "three in a row",
            T,
            vec![GOOD, GOOD, GOOD],
            (Verdict::Pass, 2010, 3),
        ),
        (
            "late, but three in a row",
            T,
            vec![BAD, ERROR, GOOD, BAD, GOOD, GOOD, GOOD],
            (Verdict::Pass, 6010, 7),
        ),
        (
            "after a delay",
            slow,
            vec![GOOD, GOOD, GOOD],
            (Verdict::Pass, 2510, 3),
        ),
        ("always bad", T, vec![BAD; 20], (Verdict::Fail, 10_000, 10)),
        (
            "bad twice is enough",
            fall,
            vec![BAD, GOOD, BAD, BAD],
            (Verdict::Fail, 3010, 4),
        ),
        ("never answered", T, vec![], (Verdict::Fail, 10_000, 5)),
        (
            "not answered in time once",
            T,
            vec![None, GOOD, GOOD, GOOD],
            (Verdict::Pass, 4010, 4),
        ),
        ("errors", T, vec![ERROR; 20], (Verdict::Error, 10_000, 10)),
        (
            "errors twice are enough",
            fall,
            vec![ERROR, ERROR],
            (Verdict::Error, 1010, 2),
        ),
        (
            "nothing that can be asked",
            T,
            vec![GOOD, NEVER],
            (Verdict::Error, 1010, 2),
        ),
        (
            "good, but too late",
            T,
            [vec![BAD; 8], vec![GOOD; 9]].concat(),
            (Verdict::Inconclusive, 10_000, 10),
        ),
        (
            "cut short while it rises",
            short,
            vec![GOOD, GOOD, None],
            (Verdict::Inconclusive, 2500, 3),
        ),
    ] {
        assert_eq!(run(timing, &outcomes), expected, "{what}");
    }
}

#[test]
fn an_answer_of_a_probe_that_was_given_up_counts_for_nothing() {
    let mut watch = Watch::new(Timing { rise: 1, ..T }, Spread::none(), at(0));
    assert_eq!(watch.step(at(0), Event::Tick), [Command::Ask { probe: 1 }]);
    assert_eq!(
        watch.step(at(2000), Event::Tick),
        [Command::GiveUp { probe: 1 }, Command::Ask { probe: 2 }]
    );
    let late = Event::Answered {
        probe: 1,
        outcome: Outcome::Good,
    };
    assert_eq!(watch.step(at(2001), late), []);
    assert_eq!(watch.verdict(), None);
}

fn event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Good),
        3 => Just(Outcome::Bad),
        2 => Just(Outcome::Error),
        1 => Just(Outcome::Impossible),
    ];
    prop_oneof![
        Just(Event::Tick),
        (0..12_u32, outcome).prop_map(|(probe, outcome)| Event::Answered { probe, outcome }),
    ]
}

#[test]
fn edges_that_begin_together_do_not_ask_together() {
    let good = [Some(Outcome::Good); 3];
    let asked = |seed| run_spread(T, Spread::of(&T, seed), &good).2;
    let all: Vec<_> = (0..100).map(asked).collect();
    for probe in 0..3 {
        let mut times: Vec<_> = all.iter().map(|asked| asked[probe]).collect();
        times.sort_unstable();
        times.dedup();
        assert!(times.len() > 60, "probe {probe} of 100 edges at {times:?}");
    }
    // The same dice show the same, and without any nothing is moved.
    assert_eq!(asked(7), asked(7));
    assert_eq!(run_spread(T, Spread::none(), &good).2, [0, 1000, 2000]);
}

proptest! {
    #[test]
    fn what_would_pass_passes_however_its_probes_are_spread(
        interval in 100..5000_u64,
        timeout in 10..5000_u64,
        rise in 1..20_u32,
        spare in 0..20_000_u64,
        seed in any::<u64>(),
    ) {
        let deadline = interval * u64::from(rise - 1) + 11 + spare;
        let timing = Timing {
            interval: Span::from_millis(interval),
            timeout: Span::from_millis(timeout),
            rise,
            deadline: Span::from_millis(deadline),
            ..T
        };
        let good = vec![Some(Outcome::Good); rise as usize];
        let (verdict, ended, asked) = run_spread(timing, Spread::of(&timing, seed), &good);
        prop_assert_eq!(verdict, Verdict::Pass, "ended after {} of {}", ended, deadline);
        prop_assert!(asked[0] <= interval / 4);
        for gap in asked.windows(2).map(|pair| pair[1] - pair[0]) {
            prop_assert!(gap.abs_diff(interval) <= interval / 10, "{} instead of {}", gap, interval);
        }
    }

    #[test]
    fn a_gate_asks_one_at_a_time_and_ends_once_by_its_deadline(
        events in proptest::collection::vec((0..3000_u64, event()), 1..80),
        rise in 1..4_u32,
        fall in proptest::option::of(1..4_u32),
        delay in 0..2000_u64,
        seed in any::<u64>(),
    ) {
        let timing = Timing { rise, fall, initial_delay: Span::from_millis(delay), ..T };
        let last = at(0) + timing.patience();
        let mut watch = Watch::new(timing, Spread::of(&timing, seed), at(0));
        let (mut now, mut under_way, mut ended) = (at(0), None, None);
        for (wait, event) in events {
            now = now + core::time::Duration::from_millis(wait);
            if let Event::Answered { probe, .. } = event {
                under_way.take_if(|held| *held == probe);
            }
            for command in watch.step(now, event) {
                prop_assert_eq!(ended, None, "a command after the end");
                match command {
                    Command::Ask { probe } => {
                        prop_assert!(under_way.is_none(), "two probes at once");
                        prop_assert!(now < last);
                        under_way = Some(probe);
                    }
                    Command::GiveUp { probe } => {
                        prop_assert_eq!(under_way, Some(probe));
                        under_way = None;
                    }
                    Command::Conclude(verdict) => ended = Some(verdict),
                }
            }
            prop_assert_eq!(watch.verdict(), ended);
            prop_assert_eq!(watch.due().is_none(), ended.is_some());
            prop_assert!(watch.due().is_none_or(|due| due <= last));
            prop_assert!(now < last || ended.is_some(), "it goes on behind its deadline");
        }
    }
}
