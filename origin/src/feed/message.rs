//! A record as it goes over the wire: sealed for its place, and conditional on our term.

use async_nats::HeaderMap;
use helix_routing::id::Generation;
use helix_routing::key::{self, Scope};
use helix_routing::wire::Wire;
use helix_service::keys::Address;

use super::records::TOMBSTONE_LIFE;
use super::{Inner, Life};

const EXPECTED_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const MESSAGE_ID: &str = "Nats-Msg-Id";
const TIME_TO_LIVE: &str = "Nats-TTL";

/// A record as SQL holds it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub stream: String,
    pub key: String,
    pub generation: Generation,
    pub body: Vec<u8>,
    pub is_tombstone: bool,
}

/// Subject, headers and payload that publish `stored` in the present life of its stream.
pub(super) fn record(
    inner: &Inner,
    scope: &Scope,
    life: &Life,
    stored: Stored,
    again: Option<u64>,
) -> (String, HeaderMap, Vec<u8>) {
    let Stored {
        stream,
        key,
        generation,
        body,
        is_tombstone,
    } = stored;
    let epoch = inner.store.epoch();
    let mut headers = fence(scope, life, HeaderMap::new());
    // One write is one id, however often it is sent; only what is asked for again is meant to be stored again.
    let again = again.map(|count| format!(".{count}")).unwrap_or_default();
    headers.insert(
        MESSAGE_ID,
        format!("{}.{epoch}.{key}.{generation}{again}", life.incarnation),
    );
    if is_tombstone {
        headers.insert(TIME_TO_LIVE, TOMBSTONE_LIFE.as_secs().to_string());
    }
    let subject = format!("{}{key}", scope.stored_prefix());
    let sealed = inner.key.seal(
        Address {
            stream,
            key,
            incarnation: life.incarnation.clone(),
            epoch,
            generation,
        },
        body,
    );
    (subject, headers, sealed)
}

/// How long the server keeps a record: a tombstone has an end.
pub(super) fn lifetime(stored: &Stored) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if stored.is_tombstone {
        headers.insert(TIME_TO_LIVE, TOMBSTONE_LIFE.as_secs().to_string());
    }
    headers
}

/// What makes a write conditional on no other origin having taken over.
pub(super) fn fence(scope: &Scope, life: &Life, mut headers: HeaderMap) -> HeaderMap {
    headers.insert(EXPECTED_SEQUENCE, life.term_sequence.to_string());
    headers.insert(
        EXPECTED_SUBJECT,
        format!("{}{}", scope.stored_prefix(), key::TERM),
    );
    headers
}

/// What makes a write conditional on the last one of its subject being at `sequence`.
pub(super) fn expect_sequence(sequence: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(EXPECTED_SEQUENCE, sequence.to_string());
    headers
}

/// A value sealed for `stream` and `key` in the present life; it has no generation of its own.
pub(super) fn sealed(
    inner: &Inner,
    life: &Life,
    stream: String,
    key: &str,
    value: &impl Wire,
) -> Vec<u8> {
    let address = Address {
        stream,
        key: key.to_owned(),
        incarnation: life.incarnation.clone(),
        epoch: inner.store.epoch(),
        generation: Generation(0),
    };
    inner.key.seal(address, value.encode())
}
