//! Following a rollout to its end, shown as it goes.

pub(crate) mod stages;
mod tree;

pub(crate) use tree::phase_name;

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use helix_routing::api::RolloutView;
use helix_routing::id::RolloutId;
use helix_routing::rollout::Outcome;
use helix_routing::time::Timestamp;
use serde::Serialize;

use crate::failure;
use crate::output::{self, Lines};
use helix_client::events::{Followed, WITHOUT_ORIGIN};
use helix_client::{Origin, OriginError};

/// How a rollout stood when the command stopped to follow it.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It is over.
    Finished(Box<RolloutView>, Outcome),
    /// It goes on without us.
    Left,
}

impl Ended {
    /// The command's exit code.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Finished(_, outcome) => outcome.exit_code(),
            Self::Left => failure::STILL_RUNNING,
        }
    }

    /// The rollout as it ended.
    pub(crate) fn view(&self) -> Option<&RolloutView> {
        match self {
            Self::Finished(view, _) => Some(view),
            Self::Left => None,
        }
    }

    /// The outcome in a word.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Finished(_, outcome) => outcome_name(*outcome),
            Self::Left => "running",
        }
    }
}

/// An outcome as it is written everywhere.
pub(crate) const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Settled => "settled",
        Outcome::WentBack => "went-back",
        Outcome::Aborted => "aborted",
        Outcome::Superseded => "superseded",
        Outcome::NeedsOperator => "needs-operator",
    }
}

/// Follows a rollout. Ctrl-C and too long a time without origin leave it running, and say how to go on watching.
pub(crate) async fn follow(origin: &Origin, rollout: &RolloutId) -> Result<Ended, OriginError> {
    let display = Display::new();
    let followed = tokio::select! {
        followed = display.follow(origin, rollout) => Some(followed?),
        _ = tokio::signal::ctrl_c() => None,
    };
    let redrawn = display.terminal.is_some();
    drop(display);
    if let Some(Followed::Finished(view, outcome)) = followed {
        if redrawn {
            output::say(&tree::draw(&view, view.changed));
        } else {
            tree::drains(&view, now()).for_each(|line| output::say(&line));
        }
        return Ok(Ended::Finished(view, outcome));
    }
    if let Some(Followed::Lost) = followed {
        output::say(&format!(
            "gave up on origin after {} min without it",
            WITHOUT_ORIGIN.as_secs() / 60
        ));
    }
    output::say(&format!(
        "the rollout goes on; `helix rollout watch {rollout}` follows it, `helix rollout pause {rollout}` begins no further \
         stage, `helix rollout abort {rollout}` takes it back"
    ));
    Ok(Ended::Left)
}

/// What `--json` prints of a rollout that was waited for, beside what began it.
#[derive(Serialize)]
struct Summary<'a, V> {
    #[serde(flatten)]
    begun: &'a V,
    elapsed_ms: u128,
    outcome: &'static str,
    exit_code: u8,
    result: Option<&'a RolloutView>,
}

/// Says how a `kind` of rollout ended, and makes it the command's end.
pub(crate) fn finish<V: Serialize>(
    kind: &str,
    begun: &V,
    ended: &Ended,
    elapsed: Duration,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let took = output::seconds(elapsed);
    output::say(&format!("{kind} {} in {took}", ended.name()));
    if json {
        output::print_json(&Summary {
            begun,
            elapsed_ms: elapsed.as_millis(),
            outcome: ended.name(),
            exit_code: ended.exit_code(),
            result: ended.view(),
        })?;
    }
    Ok(ExitCode::from(ended.exit_code()))
}

/// Shows views: a tree in place on a terminal, a line for each change elsewhere.
struct Display {
    terminal: Option<Lines>,
}

impl Display {
    fn new() -> Self {
        Self {
            terminal: output::on_terminal().then(Lines::new),
        }
    }

    async fn follow(&self, origin: &Origin, rollout: &RolloutId) -> Result<Followed, OriginError> {
        let latest = std::cell::RefCell::new(None::<RolloutView>);
        let seen = |view: &RolloutView| {
            let before = latest.replace(Some(view.clone()));
            match &self.terminal {
                Some(lines) => lines.show(&tree::draw(view, now())),
                None => tree::changes(before.as_ref(), view)
                    .iter()
                    .for_each(|line| output::say(line)),
            }
        };
        let away = |error: &OriginError| match &self.terminal {
            Some(lines) => lines.show(&format!("{error}; trying again")),
            None => output::say(&format!("{error}; trying again")),
        };
        let following = origin.follow(rollout, seen, away);
        tokio::pin!(following);
        let mut tick = tokio::time::interval(output::TICK);
        loop {
            tokio::select! {
                followed = &mut following => return followed,
                _ = tick.tick(), if self.terminal.is_some() => {
                    if let (Some(lines), Some(view)) = (&self.terminal, &*latest.borrow()) {
                        lines.show(&tree::draw(view, now()));
                    }
                }
            }
        }
    }
}

/// Only for how long a rollout has run and a drain has left, beside what origin says.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
