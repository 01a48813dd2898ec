//! Making a stream ready: its settings, its life, and our term in it.
//!
//! Invariant: two different contents never share an incarnation. A stream that is missing, made by
//! someone else, or ends before what was acknowledged to us starts a new life: everything in SQL is
//! queued again in the transaction that names the new incarnation.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{GetStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, LastRawMessageErrorKind, Republish, StorageType, Stream,
};
use helix_routing::id::{Epoch, Incarnation};
use helix_routing::key::{self, Scope};
use helix_routing::record::TermRecord;
use helix_routing::seal::KeyRole;
use helix_routing::wire::Wire;
use helix_service::random;

use tokio::time::timeout;

use super::records::{TOMBSTONE_LIFE, enqueue_all};
use super::{Inner, Life, glass, message, snapshot};
use crate::store::{self, StoreError};

/// Nobody answers for a stream that has no leader. One is chosen 4 to 9 s after the last is gone; a longer wait for an answer would
/// only be added to that.
const LOOK_UP: Duration = Duration::from_secs(1);
/// The stream's own note of its life: a stream made by other hands has none.
const INCARNATION: &str = "helix-incarnation";

/// A stream is not ready for writing.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Another origin has taken over the stream. This one must end.
    #[error("write to stream {stream} in term {ours}: another origin leads in term {theirs}")]
    Fenced {
        /// The stream.
        stream: String,
        /// This origin's term.
        ours: Epoch,
        /// The term found.
        theirs: Epoch,
    },
    /// An operator has written past origin. This process ends, and the next one takes it over.
    #[error(
        "write to stream {stream} in term {ours}: an operator's override has raised the term to {theirs}; start again to take it over"
    )]
    Overruled {
        /// The stream.
        stream: String,
        /// This origin's term.
        ours: Epoch,
        /// The operator's.
        theirs: Epoch,
    },
    /// What an operator has written could not be taken over.
    #[error("take over what an operator has written to stream {stream}")]
    Adopt {
        /// The stream.
        stream: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// SQL failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// NATS did not do it; it may later.
    #[error("{attempted} of stream {stream}")]
    Link {
        /// What was attempted.
        attempted: &'static str,
        /// The stream.
        stream: String,
        /// Why it failed.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl From<sqlx::Error> for StreamError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// Turns a failure of NATS into a [`StreamError::Link`].
pub(super) fn link<E: Error + Send + Sync + 'static>(
    attempted: &'static str,
    stream: &str,
) -> impl FnOnce(E) -> StreamError {
    let stream = stream.to_owned();
    move |source| StreamError::Link {
        attempted,
        stream,
        source: Box::new(source),
    }
}

/// What SQL says about a stream.
struct Held {
    incarnation: Incarnation,
    acknowledged: u64,
}

/// What the stream says about itself.
struct Found {
    incarnation: Option<String>,
    last_sequence: u64,
}

pub(super) async fn establish(inner: &Inner, scope: &Scope) -> Result<Life, StreamError> {
    let name = scope.stream();
    let stream = find(inner, &name).await?;
    let term = match &stream {
        Some(stream) => read_term(inner, scope, stream).await?,
        None => None,
    };
    check_term(inner, &name, term.as_ref())?;
    let held = held(inner, &name).await?;
    let found = stream.as_ref().map(|stream| Found {
        incarnation: stream
            .cached_info()
            .config
            .metadata
            .get(INCARNATION)
            .cloned(),
        last_sequence: stream.cached_info().state.last_sequence,
    });
    let is_same = is_same_life(held.as_ref(), found.as_ref());
    let is_overridden = term.as_ref().is_some_and(|term| term.by_operator);
    let known = held.as_ref().filter(|_| is_same);
    let from = (known.map_or(0, |held| held.acknowledged) + 1, is_same);
    // Also where a term of ours is there already: this origin may have ended between that and the second look.
    if let (Some(stream), true) = (&stream, is_same || is_overridden) {
        glass::adopt(inner, scope, stream, from).await?;
    }
    if let (Some(held), Some(stream)) = (known, &stream) {
        configure(inner, scope, &held.incarnation).await?;
        let life = lead(inner, scope, held, term).await?;
        if is_overridden {
            // What came between the first look and our term; nothing can come any more.
            glass::adopt(inner, scope, stream, from).await?;
        }
        return Ok(life);
    }
    let held = begin_life(inner, &name, found.as_ref()).await?;
    if let Some(stream) = stream {
        // What is not in SQL, or under an older seal, must not outlive its life.
        stream.purge().await.map_err(link("purge", &name))?;
    }
    configure(inner, scope, &held.incarnation).await?;
    let mut life = lead(inner, scope, &held, None).await?;
    // Before the first beacon names the new life, so that edges find a whole state to start it from.
    life.snapshot = Some(snapshot::put(inner, scope, &life).await?);
    Ok(life)
}

fn is_same_life(held: Option<&Held>, found: Option<&Found>) -> bool {
    match (held, found) {
        (Some(held), Some(found)) => {
            found.incarnation.as_deref() == Some(held.incarnation.as_str())
                && found.last_sequence >= held.acknowledged
        }
        (Some(_), None) | (None, _) => false,
    }
}

async fn find(inner: &Inner, name: &str) -> Result<Option<Stream>, StreamError> {
    let found = timeout(LOOK_UP, inner.jetstream.get_stream(name)).await;
    match found.map_err(link("look-up", name))? {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(code)
                if code.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => Err(link("look-up", name)(error)),
        },
    }
}

async fn held(inner: &Inner, name: &str) -> Result<Option<Held>, StreamError> {
    let row: Option<(String, i64)> =
        sqlx::query_as("SELECT incarnation, acknowledged FROM streams WHERE stream = $1")
            .bind(name)
            .fetch_optional(inner.store.reader())
            .await?;
    row.map(|(incarnation, acknowledged)| {
        Ok(Held {
            incarnation: store::id(&incarnation)?,
            acknowledged: store::count(acknowledged, "streams.acknowledged")?,
        })
    })
    .transpose()
}

/// Names a new incarnation and queues everything for it, before the stream itself says so: a crash between starts another one.
async fn begin_life(inner: &Inner, name: &str, found: Option<&Found>) -> Result<Held, StreamError> {
    let incarnation: Incarnation = random::hex16().parse().map_err(StoreError::from)?;
    let mut tx = inner.store.write().await?;
    sqlx::query(
        "INSERT INTO streams (stream, incarnation, acknowledged) VALUES ($1, $2, 0) \
         ON CONFLICT (stream) DO UPDATE SET incarnation = excluded.incarnation, acknowledged = 0",
    )
    .bind(name)
    .bind(incarnation.as_str())
    .execute(&mut *tx)
    .await?;
    enqueue_all(&mut tx, name).await?;
    tx.commit().await?;
    let last_sequence = found.map(|found| found.last_sequence);
    tracing::warn!(stream = name, %incarnation, ?last_sequence, "stream begins a new life");
    Ok(Held {
        incarnation,
        acknowledged: 0,
    })
}

async fn configure(
    inner: &Inner,
    scope: &Scope,
    incarnation: &Incarnation,
) -> Result<(), StreamError> {
    let name = scope.stream();
    let replicas = inner.policy.replicas;
    inner
        .jetstream
        .create_or_update_stream(records_config(scope, incarnation, replicas))
        .await
        .map_err(link("set-up", &name))?;
    let snapshots = snapshots_config(scope, replicas);
    let snapshot_stream = snapshots.name.clone();
    inner
        .jetstream
        .create_or_update_stream(snapshots)
        .await
        .map_err(link("set-up", &snapshot_stream))?;
    Ok(())
}

/// Shaped like a key-value bucket, with what a bucket's own settings cannot say: republication and markers for expired tombstones.
fn records_config(scope: &Scope, incarnation: &Incarnation, replicas: usize) -> Config {
    let subjects = format!("{}>", scope.stored_prefix());
    Config {
        name: scope.stream(),
        subjects: vec![subjects.clone()],
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(TOMBSTONE_LIFE),
        allow_atomic_publish: true,
        republish: Some(Republish {
            source: subjects,
            destination: format!("{}>", scope.feed_prefix()),
            headers_only: false,
        }),
        metadata: HashMap::from([(INCARNATION.to_owned(), incarnation.to_string())]),
        ..Config::default()
    }
}

fn snapshots_config(scope: &Scope, replicas: usize) -> Config {
    let bucket = scope.snapshot_bucket();
    Config {
        name: scope.snapshot_stream(),
        subjects: vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        allow_rollup: true,
        allow_direct: true,
        ..Config::default()
    }
}

/// Where the term's record is in the stream, and whose it is. One that does not verify counts as nobody's.
async fn read_term(
    inner: &Inner,
    scope: &Scope,
    stream: &Stream,
) -> Result<Option<Term>, StreamError> {
    let subject = format!("{}{}", scope.stored_prefix(), key::TERM);
    let message = match stream.get_last_raw_message_by_subject(&subject).await {
        Ok(message) => message,
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(error) => return Err(link("read the term", &scope.stream())(error)),
    };
    let by_operator = inner.ring.verify(KeyRole::Operator, &message.payload).ok();
    let by_origin = inner.ring.verify(KeyRole::Record, &message.payload).ok();
    let seal = by_operator.as_ref().or(by_origin.as_ref());
    let seal = seal.filter(|seal| seal.stream == scope.stream() && seal.key == key::TERM);
    let term = seal.and_then(|seal| TermRecord::decode(&seal.body).ok());
    Ok(Some(Term {
        sequence: message.sequence,
        by_operator: term.is_some() && by_operator.is_some(),
        epoch: term.map_or(Epoch(0), |term| term.epoch),
    }))
}

/// Whose the stream is.
struct Term {
    /// Where that stands.
    sequence: u64,
    epoch: Epoch,
    by_operator: bool,
}

/// An origin of a later term ends this one; an operator who wrote past it, too, until the next start takes that over.
fn check_term(inner: &Inner, stream: &str, term: Option<&Term>) -> Result<(), StreamError> {
    let ours = inner.store.epoch();
    match term {
        Some(term) if term.by_operator && term.epoch >= ours => Err(StreamError::Overruled {
            stream: stream.to_owned(),
            ours,
            theirs: term.epoch,
        }),
        Some(term) if term.epoch > ours => Err(StreamError::Fenced {
            stream: stream.to_owned(),
            ours,
            theirs: term.epoch,
        }),
        Some(_) | None => Ok(()),
    }
}

/// Puts our term into the stream, unless it is there: from now on no earlier origin can write.
async fn lead(
    inner: &Inner,
    scope: &Scope,
    held: &Held,
    term: Option<Term>,
) -> Result<Life, StreamError> {
    let name = scope.stream();
    let mut life = Life {
        incarnation: held.incarnation.clone(),
        term_sequence: 0,
        acknowledged: held.acknowledged,
        snapshot: None,
    };
    life.snapshot = snapshot::newest(inner, scope, &life.incarnation).await?;
    let epoch = inner.store.epoch();
    if let Some(term) = &term
        && term.epoch == epoch
    {
        life.term_sequence = term.sequence;
        return Ok(life);
    }
    let before = term.map_or(0, |term| term.sequence);
    let sealed = message::sealed(inner, &life, name.clone(), key::TERM, &TermRecord { epoch });
    let subject = format!("{}{}", scope.stored_prefix(), key::TERM);
    let sent = inner
        .jetstream
        .publish_with_headers(subject, message::expect_sequence(before), sealed.into())
        .await;
    let acknowledged = match sent {
        Ok(acknowledgement) => acknowledgement.await,
        Err(error) => Err(error),
    };
    let acknowledged = acknowledged.map_err(|error| {
        if error.kind() == PublishErrorKind::WrongLastSequence {
            tracing::warn!(stream = name, "the term changed while it was taken");
        }
        link("take the lead", &name)(error)
    })?;
    life.term_sequence = acknowledged.sequence;
    life.acknowledged = life.acknowledged.max(acknowledged.sequence);
    tracing::info!(stream = name, incarnation = %life.incarnation, epoch = epoch.0, "stream is ready");
    Ok(life)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_only_with_its_mark_and_all_that_was_acknowledged() {
        let held = Held {
            incarnation: "0123456789abcdef".parse().unwrap(),
            acknowledged: 7,
        };
        let found = |incarnation: Option<&str>, last_sequence| Found {
            incarnation: incarnation.map(str::to_owned),
            last_sequence,
        };
        let ours = Some("0123456789abcdef");
        for (found, expected) in [
            (Some(found(ours, 7)), true),
            (Some(found(ours, 9)), true),
            (Some(found(ours, 6)), false),
            (Some(found(Some("fedcba9876543210"), 7)), false),
            (Some(found(None, 7)), false),
            (None, false),
        ] {
            assert_eq!(is_same_life(Some(&held), found.as_ref()), expected);
        }
        assert!(!is_same_life(None, Some(&found(ours, 7))));
    }
}
