//! The shortest way from requests to responses: what a core remembers goes out as it is.
//!
//! All requests that have arrived on a connection and whose responses are remembered are answered with one
//! write. Nothing here waits. A request is logged when its response has left, or has not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use helix_framing::{Asked, Head, REFERER, Refusal, Scan, TRACEPARENT, USER_AGENT};
use helix_routing::id::ReleaseId;
use http::StatusCode;

use super::clock::Clock;
use super::exchange::{CLOSE, KEEP_ALIVE};
use super::io::EdgeIo;
use super::memo::{By, Kept, Known, Memo, Question, Sent};
use crate::access_log::{Line, Pages, Said, Served, Told};
use crate::edge::Edge;
use crate::exchange::Protocol;
use crate::limits::{GATHER_BYTES, MAX_BATCH};
use crate::trace;

/// Fields that are logged, a bit each.
const SAID: u32 = 1 << REFERER | 1 << USER_AGENT | 1 << TRACEPARENT;

/// What one core remembers.
#[derive(Debug)]
pub(super) struct Lane(Mutex<Remembered>);

#[derive(Debug)]
struct Remembered {
    /// Whether it remembers at all.
    remembers: bool,
    memo: Memo,
    clock: Clock,
    /// Heads whose memory is used again.
    heads: Vec<Head>,
    batches: Vec<Vec<Hit>>,
}

/// What comes after the responses of a batch.
#[derive(Debug)]
pub(super) enum Next {
    /// Another look at what has arrived.
    Again,
    /// More has to arrive.
    More,
    /// This message, which is not remembered.
    Message(Message),
    /// A head that is refused.
    Refused(Refusal),
}

/// A message whose head is the first bytes that have arrived.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) head: Head,
    pub(super) length: usize,
    /// Under which hash its response is to be kept, if it is.
    pub(super) hash: Option<u64>,
    /// When it was made: the table's version, the second and its date.
    pub(super) made: Made,
}

/// What a response is made from besides its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) version: u64,
    pub(super) second: u64,
    pub(super) date: [u8; 29],
}

/// Requests whose responses have been written to the connection, which still holds their heads.
#[derive(Debug)]
pub(super) struct Batch {
    hits: Vec<Hit>,
    /// Bytes of their heads.
    taken: usize,
    /// A last body that is too large to be gathered.
    pub(super) large: Option<Bytes>,
    /// Whether the connection ends after the last.
    pub(super) closes: bool,
    started: Instant,
}

#[derive(Debug)]
struct Hit {
    head: Head,
    at: usize,
    kept: Arc<Kept>,
    /// Where its response ends in what the connection sends.
    end: u64,
}

impl Lane {
    pub(super) fn new(remembers: bool) -> Self {
        Self(Mutex::new(Remembered {
            remembers,
            memo: Memo::new(),
            clock: Clock::new(),
            heads: Vec::new(),
            batches: Vec::new(),
        }))
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        // Nothing in here can be left half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the responses that are remembered to what has arrived on `io`.
    pub(super) fn answer(
        &self,
        edge: &Edge,
        io: &mut EdgeIo,
        started: Instant,
        draining: bool,
    ) -> (Batch, Next) {
        let mut guard = self.remembered();
        guard.clock.turn(started);
        let mut batch = Batch {
            hits: guard.batches.pop().unwrap_or_default(),
            taken: 0,
            large: None,
            closes: false,
            started,
        };
        let next = guard.fill(&mut batch, edge, io, draining);
        (batch, next)
    }

    /// Keeps `sent`, the response to `question`, which asked for `asked` and was answered `by`.
    pub(super) fn keep(
        &self,
        edge: &Edge,
        (hash, question): (u64, Question<'_>),
        asked: &Asked,
        sent: Sent,
        by: By,
    ) {
        let mut line = Vec::new();
        if let Some(pages) = edge.log.pages() {
            let (head, bytes) = (question.head, question.bytes);
            let served = served(head, bytes, &by, Some(sent.status), sent.body.len() as u64);
            pages.form().served(&mut line, &served);
        }
        self.remembered()
            .memo
            .keep(hash, &question, asked, sent, (by, line));
    }

    /// Gives back a head whose message has ended.
    pub(super) fn spare(&self, head: Head) {
        self.remembered().spare(head);
    }

    /// Logs a batch that has left, or of which only so much has, and takes its heads off the connection.
    pub(super) fn finish(&self, mut batch: Batch, edge: &Edge, io: &mut EdgeIo, whole: bool) {
        let at = Instant::now();
        let took = at.duration_since(batch.started);
        let mut guard = self.remembered();
        let mut pages = edge.log.pages();
        for hit in batch.hits.drain(..) {
            let left = hit.left(io, whole);
            edge.tally
                .finished(Protocol::Http1, left.status, left.bytes, took);
            if let Some(counted) = &hit.kept.by.counted {
                counted.finished(edge.tally.core, left.status, Some(took));
            }
            if let Some(pages) = &mut pages {
                hit.log(pages, io, (at, took), &left);
            }
            guard.spare(hit.head);
        }
        drop(pages);
        guard.batches.push(batch.hits);
        drop(guard);
        io.inbound.advance(batch.taken);
    }
}

impl Message {
    /// What it asks.
    pub(super) fn question<'a>(&'a self, bytes: &'a [u8], secure: bool) -> Question<'a> {
        Question {
            head: &self.head,
            bytes,
            secure,
            version: self.made.version,
            second: self.made.second,
        }
    }
}

impl Batch {
    pub(super) const fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }
}

impl Remembered {
    fn spare(&mut self, head: Head) {
        if self.heads.len() < MAX_BATCH {
            self.heads.push(head);
        }
    }

    fn fill(&mut self, batch: &mut Batch, edge: &Edge, io: &mut EdgeIo, draining: bool) -> Next {
        let made = Made {
            version: edge.table.version(),
            second: self.clock.second(),
            date: *self.clock.date(),
        };
        loop {
            if batch.closes || batch.large.is_some() || batch.hits.len() == MAX_BATCH {
                return Next::Again;
            }
            let length = match io.head(batch.taken) {
                Ok(Scan::Complete(length)) => length,
                Ok(Scan::More) if batch.is_empty() => return Next::More,
                Ok(Scan::More) => return Next::Again,
                Err(refusal) => return Next::Refused(refusal),
            };
            let mut head = self.heads.pop().unwrap_or_default();
            let bytes = &io.inbound[batch.taken..batch.taken + length];
            if let Err(refusal) = head.read(bytes) {
                return Next::Refused(refusal);
            }
            if !io.covers(head.host, batch.taken..batch.taken + length) {
                return Next::Refused(Refusal::Misdirected);
            }
            let bytes = &io.inbound[batch.taken..batch.taken + length];
            let question = Question {
                head: &head,
                bytes,
                secure: io.secure(),
                version: made.version,
                second: made.second,
            };
            let known = if self.remembers {
                self.memo.look(&question)
            } else {
                Known::No
            };
            let hash = match known {
                Known::Yes(kept) => {
                    batch.add(head, length, kept, io, draining);
                    continue;
                }
                Known::Asked(hash) => Some(hash),
                Known::No => None,
            };
            return Next::Message(Message {
                head,
                length,
                hash,
                made,
            });
        }
    }
}

impl Batch {
    fn add(&mut self, head: Head, length: usize, kept: Arc<Kept>, io: &mut EdgeIo, draining: bool) {
        self.closes = draining || !head.persists;
        io.outbound.extend(&kept.head);
        io.outbound
            .extend(if self.closes { CLOSE } else { KEEP_ALIVE });
        let end = io.sent() + io.outbound.len() as u64 + kept.body.len() as u64;
        if io.outbound.len() + kept.body.len() <= GATHER_BYTES {
            io.outbound.extend(&kept.body);
        } else {
            self.large = Some(kept.body.clone());
        }
        self.hits.push(Hit {
            head,
            at: self.taken,
            kept,
            end,
        });
        self.taken += length;
    }
}

/// How much of a response has left.
struct Left {
    /// None when not all of the head has.
    status: Option<StatusCode>,
    bytes: u64,
    whole: bool,
}

impl Hit {
    fn left(&self, io: &EdgeIo, whole: bool) -> Left {
        let body = self.kept.body.len() as u64;
        let unsent = if whole {
            0
        } else {
            self.end.saturating_sub(io.sent())
        };
        Left {
            status: (unsent <= body).then_some(self.kept.status),
            bytes: body.saturating_sub(unsent),
            whole: unsent == 0,
        }
    }

    fn log(&self, pages: &mut Pages, io: &EdgeIo, (at, took): (Instant, Duration), left: &Left) {
        let bytes = io.inbound.get(self.at..).unwrap_or_default();
        let served = if left.whole && !self.head.version_1_0 {
            Told::Before(&self.kept.line)
        } else {
            let (head, by) = (&self.head, &self.kept.by);
            Told::Now(served(head, bytes, by, left.status, left.bytes))
        };
        pages.write(&Line {
            peer: io.peer(),
            at,
            took,
            served,
            said: said(&self.head, bytes),
            cache: "",
            upstream: None,
            error: if left.whole {
                ""
            } else {
                "the client is gone or takes nothing"
            },
        });
    }
}

fn served<'a>(
    head: &'a Head,
    bytes: &'a [u8],
    by: &'a By,
    status: Option<StatusCode>,
    sent: u64,
) -> Served<'a> {
    Served {
        protocol: Protocol::Http1,
        version_1_0: head.version_1_0,
        method: head.method.as_str(),
        host: head.host.of(bytes),
        target: head.target.of(bytes),
        status,
        bytes: sent,
        release: by.release.as_ref().map_or("", ReleaseId::as_str),
        site: by.site.as_ref(),
    }
}

/// What the client said of itself, in one look at the fields.
fn said<'a>(head: &'a Head, bytes: &'a [u8]) -> Said<'a> {
    let mut said = Said::default();
    if head.present & SAID == 0 {
        return said;
    }
    let mut traced = false;
    for (name, value) in head.fields(bytes).values(SAID) {
        match name {
            REFERER => said.referer = value,
            USER_AGENT => said.user_agent = value,
            // Two of them are none.
            _ if traced => said.trace_id = b"",
            _ => {
                traced = true;
                said.trace_id = trace::id(value).map_or(b"", |_| &value[3..35]);
            }
        }
    }
    said
}
