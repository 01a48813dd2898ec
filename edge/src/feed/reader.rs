//! Reads parts of a stream with nothing but `DIRECT.GET`, all that an edge's account may ask for.
//!
//! Each read has an inbox of its own, so that an answer that comes late or twice is nobody's. Whether the
//! pages join without a hole is the follower's question.

use std::time::Duration;

use async_nats::{Client, Message};
use futures_util::StreamExt;
use serde::Serialize;

use super::follower::{Entry, Page};

/// Messages in one page. Far below half of what a subscription holds (65,536), so that a page cannot overflow it.
pub const PAGE_MESSAGES: usize = 500;
/// An answer that takes longer is lost: refused permissions are silent.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// A part of a stream was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The request could not be sent.
    #[error("ask {stream} for messages")]
    Ask {
        /// The stream.
        stream: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer, or not the whole of it.
    #[error("no answer from {stream} within {} s", ANSWER_WAIT.as_secs())]
    Silence {
        /// The stream.
        stream: String,
    },
    /// The server refused.
    #[error("{stream} answered {status} {description}")]
    Status {
        /// The stream.
        stream: String,
        /// The status.
        status: u16,
        /// What the server says.
        description: String,
    },
    /// An answer lacks a header that every stored message has.
    #[error("an answer from {stream} lacks header {header}")]
    Header {
        /// The stream.
        stream: String,
        /// The header.
        header: &'static str,
    },
}

/// A message as it is stored: under which subject, and what.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The subject it is stored under, which is what counts; where it was delivered does not.
    pub subject: String,
    /// Its bytes.
    pub payload: bytes::Bytes,
    /// The server or a delete wrote it: it moves the sequence and says nothing.
    pub is_marker: bool,
}

#[derive(Serialize)]
struct Batch<'a> {
    batch: usize,
    seq: u64,
    next_by_subj: &'a str,
}

#[derive(Serialize)]
struct Last<'a> {
    last_by_subj: &'a str,
}

/// Reads up to `count` messages whose subject matches `filter`, from sequence `from` on.
///
/// # Errors
/// As [`ReadError`] says.
pub async fn page(
    client: &Client,
    stream: &str,
    filter: &str,
    from: u64,
    count: usize,
) -> Result<Page<Stored>, ReadError> {
    let mut answers = ask(
        client,
        stream,
        &Batch {
            batch: count,
            seq: from,
            next_by_subj: filter,
        },
    )
    .await?;
    let mut entries = Vec::new();
    loop {
        let message = next(&mut answers, stream).await?;
        match message.status.map(|status| status.as_u16()) {
            None => {
                let (sequence, stored) = stored(&message).ok_or_else(|| lacks(stream, SEQUENCE))?;
                let previous =
                    number(&message, LAST_SEQUENCE).ok_or_else(|| lacks(stream, LAST_SEQUENCE))?;
                entries.push(Entry {
                    sequence,
                    previous,
                    message: stored,
                });
            }
            Some(204) => {
                let more = number(&message, NUM_PENDING).is_some_and(|pending| pending > 0);
                return Ok(Page {
                    entries,
                    ended_at: number(&message, LAST_SEQUENCE),
                    more,
                });
            }
            Some(404) => {
                return Ok(Page {
                    entries,
                    ended_at: Some(0),
                    more: false,
                });
            }
            Some(status) => return Err(refused(stream, status, &message)),
        }
    }
}

/// Reads the newest message under one subject; none when there is none.
///
/// # Errors
/// As [`ReadError`] says.
pub async fn last(
    client: &Client,
    stream: &str,
    subject: &str,
) -> Result<Option<Stored>, ReadError> {
    let mut answers = ask(
        client,
        stream,
        &Last {
            last_by_subj: subject,
        },
    )
    .await?;
    let message = next(&mut answers, stream).await?;
    match message.status.map(|status| status.as_u16()) {
        None => Ok(stored(&message).map(|(_, stored)| stored)),
        Some(404) => Ok(None),
        Some(status) => Err(refused(stream, status, &message)),
    }
}

/// Sequence and content of a stored message, from the headers that direct reads and republished messages share.
#[must_use]
pub fn stored(message: &Message) -> Option<(u64, Stored)> {
    let headers = message.headers.as_ref()?;
    let sequence = number(message, SEQUENCE)?;
    let subject = headers.get(SUBJECT)?.as_str().to_owned();
    // A signed tombstone is deleted too, but has a body.
    let is_marker = message.payload.is_empty();
    Some((
        sequence,
        Stored {
            subject,
            payload: message.payload.clone(),
            is_marker,
        },
    ))
}

/// The stream a message says it is of.
#[must_use]
pub fn stream_of(message: &Message) -> Option<&str> {
    Some(message.headers.as_ref()?.get(STREAM)?.as_str())
}

const STREAM: &str = "Nats-Stream";
const SUBJECT: &str = "Nats-Subject";
const SEQUENCE: &str = "Nats-Sequence";
const LAST_SEQUENCE: &str = "Nats-Last-Sequence";
const NUM_PENDING: &str = "Nats-Num-Pending";

fn number(message: &Message, header: &str) -> Option<u64> {
    message.headers.as_ref()?.get(header)?.as_str().parse().ok()
}

fn lacks(stream: &str, header: &'static str) -> ReadError {
    ReadError::Header {
        stream: stream.to_owned(),
        header,
    }
}

fn refused(stream: &str, status: u16, message: &Message) -> ReadError {
    let description = message
        .description
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    ReadError::Status {
        stream: stream.to_owned(),
        status,
        description,
    }
}

async fn ask(
    client: &Client,
    stream: &str,
    request: &impl Serialize,
) -> Result<async_nats::Subscriber, ReadError> {
    let inbox = client.new_inbox();
    let body = serde_json::to_vec(request).expect("numbers and text are always JSON");
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    let asked = async {
        let answers = client.subscribe(inbox.clone()).await?;
        client
            .publish_with_reply(subject, inbox, body.into())
            .await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(answers)
    };
    // Without a link, commands wait in a queue that may be full.
    match tokio::time::timeout(ANSWER_WAIT, asked).await {
        Ok(asked) => asked.map_err(|source| ReadError::Ask {
            stream: stream.to_owned(),
            source,
        }),
        Err(_) => Err(ReadError::Silence {
            stream: stream.to_owned(),
        }),
    }
}

async fn next(answers: &mut async_nats::Subscriber, stream: &str) -> Result<Message, ReadError> {
    match tokio::time::timeout(ANSWER_WAIT, answers.next()).await {
        Ok(Some(message)) => Ok(message),
        Ok(None) | Err(_) => Err(ReadError::Silence {
            stream: stream.to_owned(),
        }),
    }
}
