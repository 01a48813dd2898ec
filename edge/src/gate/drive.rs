//! Drives one gate: starts probes when its watch says so, tells it what they showed, and keeps the evidence.

use std::pin::{Pin, pin};
use std::time::Duration;

use helix_routing::gate::result::{GateKind, GateResult, evidence};
use helix_routing::gate::watch::{Command, Event, Outcome, Watch};
use helix_routing::gate::{Spread, Timing};
use helix_routing::routes::Span;
use helix_routing::time::Timestamp;
use helix_routing::verdict::Verdict;
use helix_service::clock;
use tokio::time::{Instant, sleep_until, timeout};

/// How much longer a probe is waited for than it may take: it says itself what was late, and knows it best.
const GRACE: Duration = Duration::from_millis(50);

/// What one probe showed.
#[derive(Clone, Debug)]
pub(crate) struct Probed {
    pub(crate) outcome: Outcome,
    /// The URL or address asked.
    pub(crate) asked: String,
    pub(crate) status: Option<u16>,
    /// The start of a body.
    pub(crate) body: Option<String>,
    /// What was wrong.
    pub(crate) reason: Option<String>,
}

impl Probed {
    fn new(outcome: Outcome, asked: impl Into<String>, reason: Option<&str>) -> Self {
        Self {
            outcome,
            asked: evidence(&asked.into()),
            status: None,
            body: None,
            reason: reason.map(evidence),
        }
    }

    /// What was wanted.
    pub(crate) fn good(asked: impl Into<String>) -> Self {
        Self::new(Outcome::Good, asked, None)
    }

    /// Something else.
    pub(crate) fn bad(asked: impl Into<String>, reason: &str) -> Self {
        Self::new(Outcome::Bad, asked, Some(reason))
    }

    /// It could not be asked this time.
    pub(crate) fn error(asked: impl Into<String>, reason: &str) -> Self {
        Self::new(Outcome::Error, asked, Some(reason))
    }

    /// It can never be asked.
    pub(crate) fn impossible(asked: impl Into<String>, reason: &str) -> Self {
        Self::new(Outcome::Impossible, asked, Some(reason))
    }

    /// With a word about it, though it is good.
    pub(crate) fn remarking(mut self, remark: &str) -> Self {
        self.reason = Some(evidence(remark));
        self
    }

    /// With what was answered.
    pub(crate) fn with(mut self, status: u16, body: Option<&[u8]>) -> Self {
        self.status = Some(status);
        self.body = body.map(|body| evidence(&String::from_utf8_lossy(body)));
        self
    }
}

/// Waits for an answer, but not for longer than `limit`.
pub(crate) async fn within(
    limit: Span,
    asked: &str,
    asking: impl Future<Output = Probed>,
) -> Probed {
    let late = |_| Probed::bad(asked, &format!("gave no answer within {limit}"));
    timeout(limit.duration(), asking).await.unwrap_or_else(late)
}

/// How a gate ended, and what was seen last.
#[derive(Debug)]
pub(crate) struct Ended {
    verdict: Verdict,
    last: Probed,
    probes: u32,
    elapsed: Duration,
    last_probe: Option<Timestamp>,
}

impl Ended {
    /// The same under the gate's name.
    pub(crate) fn result(self, gate: &str, kind: GateKind) -> GateResult {
        let Probed {
            asked,
            status,
            body,
            mut reason,
            ..
        } = self.last;
        if self.verdict == Verdict::Inconclusive {
            reason = Some("answered well, but not often enough by the deadline".to_owned());
        }
        GateResult {
            gate: gate.to_owned(),
            kind,
            verdict: self.verdict,
            asked,
            status,
            body,
            reason,
            probes: self.probes,
            elapsed_ms: u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            last_probe: self.last_probe,
        }
    }
}

/// Runs a gate to its end; `probe` makes one probe, `spread` says by how much they are moved.
pub(crate) async fn drive<F>(timing: Timing, spread: Spread, probe: impl Fn() -> F) -> Ended
where
    F: Future<Output = Probed> + Send,
{
    let started = Instant::now();
    // Counted from the start on: a clock that is set must not end a gate.
    let now = || {
        let passed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(passed)
    };
    let mut watch = Watch::new(timing, spread, now());
    let mut running: Option<(u32, Pin<Box<F>>)> = None;
    let mut last = Probed::bad("", "was not asked by the deadline");
    let mut last_probe = None;
    let mut commands = watch.step(now(), Event::Tick);
    loop {
        for command in commands {
            match command {
                Command::Ask { probe: number } => {
                    last_probe = Some(clock::now());
                    running = Some((number, Box::pin(probe())));
                }
                Command::GiveUp { .. } => {
                    running = None;
                    last = Probed::bad(last.asked, "gave no answer in time");
                }
                Command::Conclude(verdict) => {
                    return Ended {
                        verdict,
                        last,
                        probes: watch.probes(),
                        elapsed: started.elapsed(),
                        last_probe,
                    };
                }
            }
        }
        let event = wait(started, watch.due(), &mut running, &mut last).await;
        commands = watch.step(now(), event);
    }
}

/// Waits for the probe under way, or for its time.
async fn wait<F: Future<Output = Probed>>(
    started: Instant,
    due: Option<Timestamp>,
    running: &mut Option<(u32, Pin<Box<F>>)>,
    last: &mut Probed,
) -> Event {
    let due = due.map_or(Duration::ZERO, |due| Duration::from_millis(due.as_millis()));
    let Some((number, probe)) = running else {
        sleep_until(started + due).await;
        return Event::Tick;
    };
    let late = pin!(sleep_until(started + due + GRACE));
    tokio::select! {
        biased;
        probed = probe => {
            let event = Event::Answered { probe: *number, outcome: probed.outcome };
            *last = probed;
            *running = None;
            event
        }
        () = late => Event::Tick,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const TIMING: Timing = Timing {
        interval: Span::from_millis(10),
        timeout: Span::from_millis(50),
        rise: 2,
        fall: None,
        initial_delay: Span::from_millis(0),
        deadline: Span::from_millis(400),
    };

    /// A gate that shows these one after the other, and then the last of them.
    async fn run(timing: Timing, shown: &'static [Outcome]) -> GateResult {
        let asked = Arc::new(AtomicU32::new(0));
        let probe = || {
            let asked = Arc::clone(&asked);
            async move {
                let at = asked.fetch_add(1, Ordering::Relaxed) as usize;
                let outcome = *shown.get(at).unwrap_or(&shown[shown.len() - 1]);
                Probed::new(
                    outcome,
                    "there",
                    (outcome != Outcome::Good).then_some("is bad"),
                )
            }
        };
        drive(timing, Spread::none(), probe)
            .await
            .result("a", GateKind::Http)
    }

    #[tokio::test]
    async fn a_gate_ends_with_what_was_seen_last() {
        let passed = run(TIMING, &[Outcome::Bad, Outcome::Good]).await;
        assert_eq!((passed.verdict, passed.probes), (Verdict::Pass, 3));
        assert_eq!((passed.reason, passed.asked.as_str()), (None, "there"));
        assert!(passed.last_probe.is_some() && passed.elapsed_ms >= 20);
        let failed = run(TIMING, &[Outcome::Good, Outcome::Bad]).await;
        assert_eq!(failed.verdict, Verdict::Fail);
        assert_eq!(failed.reason.as_deref(), Some("is bad"));
        assert!(failed.elapsed_ms >= 400, "{}", failed.elapsed_ms);
        let never = run(TIMING, &[Outcome::Impossible]).await;
        assert_eq!((never.verdict, never.probes), (Verdict::Error, 1));
        let slow = Timing {
            deadline: Span::from_millis(15),
            rise: 9,
            ..TIMING
        };
        let few = run(slow, &[Outcome::Good]).await;
        assert_eq!(few.verdict, Verdict::Inconclusive);
        assert!(few.reason.unwrap().contains("not often enough"));
    }

    #[tokio::test]
    async fn the_first_probe_waits_for_its_dice() {
        let timing = Timing {
            interval: Span::from_millis(800),
            rise: 1,
            deadline: Span::from_millis(5000),
            ..TIMING
        };
        let probe = || std::future::ready(Probed::good("there"));
        let mut waited = Duration::ZERO;
        for seed in 0..4 {
            let ended = drive(timing, Spread::of(&timing, seed), probe).await;
            assert_eq!((ended.verdict, ended.probes), (Verdict::Pass, 1));
            waited = waited.max(ended.elapsed);
        }
        // The latest of four out of 0 to 200 ms, which these dice always show.
        assert!(waited >= Duration::from_millis(50), "{waited:?}");
    }

    #[tokio::test]
    async fn a_probe_that_never_ends_is_let_go() {
        let fall = Timing {
            fall: Some(2),
            ..TIMING
        };
        let ended = drive(fall, Spread::none(), std::future::pending::<Probed>).await;
        let result = ended.result("a", GateKind::Tcp);
        assert_eq!((result.verdict, result.probes), (Verdict::Fail, 2));
        assert_eq!(result.reason.as_deref(), Some("gave no answer in time"));
        let named = || within(TIMING.timeout, "10.0.0.1:80", std::future::pending());
        let result = drive(fall, Spread::none(), named)
            .await
            .result("a", GateKind::Tcp);
        assert_eq!(result.asked, "10.0.0.1:80");
        assert_eq!(result.reason.as_deref(), Some("gave no answer within 50ms"));
    }
}
