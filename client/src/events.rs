//! A rollout's events, read to their end.
//!
//! The stream is server-sent events (WHATWG HTML 9.2) of whole views, so nothing is lost when it
//! breaks: the next connection starts with the present view. What is not understood is skipped.

use std::time::Duration;

use helix_routing::api::RolloutView;
use helix_routing::id::RolloutId;
use helix_routing::rollout::Outcome;
use tokio::time::{Instant, timeout};

use crate::origin::{Origin, OriginError};
use crate::retry::BackOff;

/// Origin sends something at least every 10 s; three times that without a byte is a dead connection.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// How long a command follows a rollout without origin; the rollout goes on, the command says how to watch it.
pub const WITHOUT_ORIGIN: Duration = Duration::from_secs(600);
/// Largest event: a view of hundreds of regions.
const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// How following a rollout ended.
#[derive(Debug)]
pub enum Followed {
    /// The rollout is over.
    Finished(Box<RolloutView>, Outcome),
    /// Origin was away for too long; the rollout may still run.
    Lost,
}

impl Origin {
    /// Follows a rollout to its end, over any number of connections. Calls `seen` with every view, and
    /// `away` with each error that begins a time without origin.
    pub async fn follow(
        &self,
        rollout: &RolloutId,
        mut seen: impl FnMut(&RolloutView),
        mut away: impl FnMut(&OriginError),
    ) -> Result<Followed, OriginError> {
        let mut contact = Instant::now();
        let mut back_off = BackOff::new();
        let mut told = false;
        loop {
            let mut heard = |view: &RolloutView| {
                contact = Instant::now();
                told = false;
                back_off = BackOff::new();
                seen(view);
            };
            match self.read_events(rollout, &mut heard).await {
                Ok(Some((view, outcome))) => {
                    return Ok(Followed::Finished(Box::new(view), outcome));
                }
                Ok(None) => {}
                Err(error) if !error.is_passing() => return Err(error),
                Err(error) => {
                    if !told {
                        away(&error);
                    }
                    told = true;
                }
            }
            if contact.elapsed() > WITHOUT_ORIGIN {
                return Ok(Followed::Lost);
            }
            back_off.wait().await;
        }
    }

    /// One connection's worth of events; the finished view, if it came.
    async fn read_events(
        &self,
        rollout: &RolloutId,
        seen: &mut impl FnMut(&RolloutView),
    ) -> Result<Option<(RolloutView, Outcome)>, OriginError> {
        let path = ["rollouts", rollout.as_str(), "events"];
        // Who was stopped takes connections and says nothing: the next address is asked, if there is one.
        let Ok(opened) = timeout(SILENCE, self.open(&path)).await else {
            self.pass_over();
            return Ok(None);
        };
        let mut response = opened?;
        let mut events = EventReader::default();
        loop {
            let Ok(chunk) = timeout(SILENCE, response.chunk()).await else {
                self.pass_over();
                return Ok(None);
            };
            // An end without the finished view is the same as a connection that broke.
            let Some(chunk) = chunk.map_err(|source| self.unreachable(source))? else {
                return Ok(None);
            };
            for event in events.push(&chunk) {
                let Ok(view) = serde_json::from_slice::<RolloutView>(&event.data) else {
                    continue;
                };
                seen(&view);
                if let Some(outcome) = view.outcome {
                    return Ok(Some((view, outcome)));
                }
            }
        }
    }
}

/// An event, as it came.
#[derive(Debug, Default)]
pub(super) struct Event {
    /// Its name; empty if it has none.
    pub(super) kind: String,
    /// Where a reader that begins again goes on.
    pub(super) id: Option<String>,
    /// What it holds.
    pub(super) data: Vec<u8>,
}

/// Takes a stream apart into events. *Pure*.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    line: Vec<u8>,
    event: Event,
}

impl EventReader {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => events.extend(self.end_line()),
                b'\r' => {}
                _ if self.line.len() < MAX_EVENT_BYTES => self.line.push(byte),
                _ => {}
            }
        }
        events
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event);
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&line[..], &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" if self.event.data.len() + value.len() <= MAX_EVENT_BYTES => {
                self.event.data.extend_from_slice(value);
                self.event.data.push(b'\n');
            }
            b"event" => self.event.kind = String::from_utf8_lossy(value).into_owned(),
            b"id" => self.event.id = Some(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_name_and_its_id() {
        let mut reader = EventReader::default();
        let events = reader.push(b"event: line\nid: 1-7\ndata: {}\n\n: alive\n\ndata:x\n\n");
        let told: Vec<_> = events
            .iter()
            .map(|event| (event.kind.as_str(), event.id.as_deref()))
            .collect();
        assert_eq!(told, [("line", Some("1-7")), ("", None)]);
    }

    const VIEW: &str = r#"{"rollout":"00112233445566aa","site":"shop/production","kind":"deploy","by":"ana","revision":3,
        "started":1,"changed":2,"outcome":null,"regions":[]}"#;

    #[test]
    fn views_are_read_however_the_bytes_are_cut() {
        let one_line = VIEW.replace('\n', " ");
        let stream = format!(
            ": hello\n\nevent: rollout\r\ndata: {one_line}\r\n\r\nevent: x\ndata: not json\n\ndata:{one_line}\n\n"
        );
        for cut in 1..40 {
            let mut reader = EventReader::default();
            let views: Vec<_> = stream
                .as_bytes()
                .chunks(cut)
                .flat_map(|chunk| reader.push(chunk))
                .filter_map(|event| serde_json::from_slice::<RolloutView>(&event.data).ok())
                .collect();
            assert_eq!(views.len(), 2, "cut at {cut}");
            assert_eq!(views[0].revision, 3);
        }
    }

    #[test]
    fn data_over_several_lines_is_one_event() {
        let lines: String = VIEW.lines().map(|line| format!("data: {line}\n")).collect();
        assert_eq!(
            EventReader::default()
                .push(format!("{lines}\n").as_bytes())
                .len(),
            1
        );
    }
}
