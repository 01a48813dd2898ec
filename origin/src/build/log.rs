//! Logs of builds: lines that workers send, kept for a while, and read from wherever a reader was.
//!
//! Invariant: lines of one attempt are kept in the order of their numbers, each once. What is more than a log may have is counted, and the
//! build goes on.

use std::time::Duration;

use helix_routing::api::{
    BuildLimits, BuildLog, BuildWish, LogLine, MAX_LOG_LINE_BYTES, MAX_LOG_LINES,
};
use helix_routing::id::BuildId;
use helix_service::clock;

use super::state::Asking;
use super::{BuildError, find, step_name, step_of};
use crate::app::App;
use crate::auth::Caller;
use crate::store::{self, Connection, Store, StoreError, count, millis, number, time};

/// How long the log of a build that has ended is kept.
const KEPT: Duration = Duration::from_hours(30 * 24);
/// Lines that are read at once.
pub const PAGE_LINES: i64 = 500;

/// Where a reader is: an attempt, and a number in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The attempt.
    pub attempt: u64,
    /// The last line that was read.
    pub seq: u64,
}

impl Position {
    /// Reads what its `Display` wrote.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (attempt, seq) = text.split_once('-')?;
        Some(Self {
            attempt: attempt.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.attempt, self.seq)
    }
}

/// Takes lines from a worker, which thereby says that it goes on.
///
/// # Errors
/// When there is no such build, there are too many lines at once, or the database fails.
pub async fn append(
    app: &App,
    caller: &Caller,
    id: &BuildId,
    log: BuildLog,
) -> Result<BuildWish, BuildError> {
    if log.lines.len() > MAX_LOG_LINES {
        return Err(BuildError::Lines(MAX_LOG_LINES));
    }
    let asking = Asking {
        worker: &log.worker,
        token: &caller.id,
    };
    let mut tx = app.store.write().await?;
    let build = find(&mut tx, id).await?;
    if !build.state.is_of(asking) {
        let stop = Some(build.state.stop());
        return Ok(BuildWish { stop });
    }
    let attempt = number(build.attempts);
    let last: i64 = sqlx::query_scalar(
        "SELECT COALESCE(MAX(seq), 0) FROM build_lines WHERE build = $1 AND attempt = $2",
    )
    .bind(id.as_str())
    .bind(attempt)
    .fetch_one(&mut *tx)
    .await?;
    let mut last = count(last, "build_lines.seq")?;
    let (mut bytes, mut dropped) = (count(build.row.log_bytes, "builds.log_bytes")?, 0_i64);
    for line in log.lines {
        if line.seq <= last {
            continue;
        }
        last = line.seq;
        let text = cut(&line.text);
        if bytes + text.len() as u64 > BuildLimits::default().log_bytes {
            dropped += 1;
            continue;
        }
        bytes += text.len() as u64 + 1;
        sqlx::query(
            "INSERT INTO build_lines (build, attempt, seq, at, step, line) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id.as_str())
        .bind(attempt)
        .bind(number(line.seq))
        .bind(millis(line.at))
        .bind(step_name(line.step))
        .bind(store::text(text))
        .execute(&mut *tx)
        .await?;
    }
    let (state, _) = build.state.claim(asking, clock::now())?;
    let until = match state {
        super::State::Claimed(lease) => millis(lease.until),
        _ => {
            return Err(StoreError::Corrupt {
                what: "builds.state",
            }
            .into());
        }
    };
    sqlx::query(
        "UPDATE builds SET until = $1, log_bytes = $2, log_dropped = log_dropped + $3 WHERE build = $4",
    )
    .bind(until)
    .bind(number(bytes))
    .bind(dropped)
    .bind(id.as_str())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    app.source.changed();
    Ok(BuildWish { stop: None })
}

/// The next lines after a position, and the position after them.
///
/// # Errors
/// When the database fails.
pub async fn after(
    connection: &mut Connection,
    id: &BuildId,
    position: Position,
) -> Result<Vec<(Position, LogLine)>, StoreError> {
    let rows: Vec<(i64, i64, i64, String, String)> = sqlx::query_as(
        "SELECT attempt, seq, at, step, line FROM build_lines WHERE build = $1 AND (attempt > $2 OR (attempt = $2 AND seq > $3)) \
         ORDER BY attempt, seq LIMIT $4",
    )
    .bind(id.as_str())
    .bind(number(position.attempt))
    .bind(number(position.seq))
    .bind(PAGE_LINES)
    .fetch_all(connection)
    .await?;
    let line = |(attempt, seq, at, step, text): (i64, i64, i64, String, String)| {
        let position = Position {
            attempt: count(attempt, "build_lines.attempt")?,
            seq: count(seq, "build_lines.seq")?,
        };
        let line = LogLine {
            seq: position.seq,
            at: time(at),
            step: step_of(&step)?,
            text,
        };
        Ok((position, line))
    };
    rows.into_iter().map(line).collect()
}

/// Removes logs that are older than they are kept.
///
/// # Errors
/// When the database fails.
pub async fn forget(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    sqlx::query(
        "DELETE FROM build_lines WHERE build IN (SELECT build FROM builds WHERE ended < $1)",
    )
    .bind(millis(clock::now() - KEPT))
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// The start of a line that is too long.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_LOG_LINE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(cut("abc"), "abc");
        let long = "\u{e9}".repeat(MAX_LOG_LINE_BYTES);
        assert_eq!(cut(&long).len(), MAX_LOG_LINE_BYTES);
        let odd = format!("a{long}");
        assert_eq!(cut(&odd).len(), MAX_LOG_LINE_BYTES - 1);
    }

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let position = Position {
            attempt: 2,
            seq: 17,
        };
        assert_eq!(Position::read(&position.to_string()), Some(position));
        for text in ["", "2", "2-", "-1", "a-b", "1-2-3"] {
            assert_eq!(Position::read(text), None, "{text}");
        }
    }
}
