//! The log of a build, read to its end over any number of connections: each goes on after the last line that came.

use std::time::Duration;

use helix_routing::api::{BuildView, LogLine};
use helix_routing::id::BuildId;
use tokio::time::{Instant, timeout};

use crate::events::{EventReader, SILENCE, WITHOUT_ORIGIN};
use crate::origin::{Origin, OriginError};
use crate::retry::BackOff;

/// Without following, what does not come at once is not there yet.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Nor is, after that, what comes so long after what was there: a build that goes on and on has no end to wait for.
const GAP: Duration = Duration::from_millis(100);

impl Origin {
    /// Calls `seen` with every line. The build as it ended; none if it goes on, and is not to be followed or origin was away for too long.
    pub async fn follow_build(
        &self,
        build: &BuildId,
        follows: bool,
        mut seen: impl FnMut(&LogLine),
    ) -> Result<Option<BuildView>, OriginError> {
        let mut last: Option<String> = None;
        let mut back_off = BackOff::new();
        let mut contact = Instant::now();
        loop {
            let before = last.clone();
            let read = self.read_log(build, follows, &mut last, &mut seen).await;
            match read {
                Ok(Some(view)) => return Ok(Some(view)),
                Ok(None) if !follows => return Ok(None),
                Ok(None) => {}
                Err(error) if !error.is_passing() || !follows => return Err(error),
                Err(_) => {}
            }
            if last != before {
                (contact, back_off) = (Instant::now(), BackOff::new());
            }
            if contact.elapsed() > WITHOUT_ORIGIN {
                return Ok(None);
            }
            back_off.wait().await;
        }
    }

    async fn read_log(
        &self,
        build: &BuildId,
        follows: bool,
        last: &mut Option<String>,
        seen: &mut impl FnMut(&LogLine),
    ) -> Result<Option<BuildView>, OriginError> {
        let path = ["builds", build.as_str(), "log"];
        let opening = self.open_after(&path, last.as_deref());
        let Ok(opened) = timeout(SILENCE, opening).await else {
            self.pass_over();
            return Ok(None);
        };
        let mut response = opened?;
        let mut events = EventReader::default();
        let begun = Instant::now();
        loop {
            let patience = if follows {
                SILENCE
            } else {
                AT_ONCE.saturating_sub(begun.elapsed()).max(GAP)
            };
            let Ok(chunk) = timeout(patience, response.chunk()).await else {
                return Ok(None);
            };
            let Some(chunk) = chunk.map_err(|source| self.unreachable(source))? else {
                return Ok(None);
            };
            for event in events.push(&chunk) {
                match event.kind.as_str() {
                    "line" => {
                        if let Ok(line) = serde_json::from_slice(&event.data) {
                            seen(&line);
                        }
                        *last = event.id.or_else(|| last.take());
                    }
                    "end" => return Ok(serde_json::from_slice(&event.data).ok()),
                    _ => {}
                }
            }
        }
    }
}
