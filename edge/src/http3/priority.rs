//! In which order responses share a connection (RFC 9218).
//!
//! Pure, but for the one table of what a client has changed since. Streams of one urgency go one after the other in
//! the order they were asked for, those that are of use in part side by side behind them. What is malformed says
//! nothing: priorities are wishes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{Dictionary, ListEntry, Parser};

/// How a client or a server wishes a response to be sent.
pub(super) static PRIORITY: HeaderName = HeaderName::from_static("priority");

/// Most streams whose changed priority is remembered: as many as can be open, and some that are not yet. Of more, the
/// oldest are forgotten.
const MAX_CHANGED: usize = 256;

/// Bits that tell apart streams of one urgency, by their order.
const ORDER_BITS: u32 = 26;

/// One wish. What was not said is as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Priority {
    urgency: Option<u8>,
    incremental: Option<bool>,
}

impl Priority {
    /// What a field's value says (RFC 9218 4).
    pub(super) fn parse(value: &[u8]) -> Self {
        let Ok(said) = Parser::parse_dictionary(value) else {
            return Self::default();
        };
        let urgency = item(&said, "u").and_then(|item| item.as_int());
        Self {
            urgency: urgency
                .and_then(|urgency| u8::try_from(urgency).ok())
                .filter(|urgency| *urgency <= 7),
            incremental: item(&said, "i").and_then(|item| item.as_bool()),
        }
    }

    /// What the fields of a message say.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(&PRIORITY).iter().map(HeaderValue::as_bytes);
        let Some(first) = lines.next() else {
            return Self::default();
        };
        let rest: Vec<&[u8]> = lines.collect();
        if rest.is_empty() {
            return Self::parse(first);
        }
        Self::parse(&[&[first], &rest[..]].concat().join(&b", "[..]))
    }

    /// The same, with what `other` says instead (RFC 9218 8).
    pub(super) fn overridden(self, other: Self) -> Self {
        Self {
            urgency: other.urgency.or(self.urgency),
            incremental: other.incremental.or(self.incremental),
        }
    }

    /// For the transport, which sends what is higher first and what is equal in turns.
    pub(super) fn rank(self, stream: u64) -> i32 {
        let urgency = i32::from(7 - self.urgency.unwrap_or(3).min(7));
        let order = if self.incremental.unwrap_or(false) {
            0
        } else {
            // Each request has the id of the one before, and four. After 67 million they begin anew.
            let count = (stream / 4) % ((1 << ORDER_BITS) - 1);
            i32::try_from((1 << ORDER_BITS) - 1 - count).unwrap_or(1)
        };
        (urgency << (ORDER_BITS + 1)) + order
    }
}

fn item<'a>(said: &'a Dictionary, key: &str) -> Option<&'a sfv::BareItem> {
    match said.get(key)? {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

/// What a client has said of its streams since it opened them, or before (RFC 9218 7).
#[derive(Debug, Default)]
pub(super) struct Changed {
    by_stream: Mutex<BTreeMap<u64, Priority>>,
    /// Rises with every change, so that who has seen it need not look.
    version: AtomicU64,
}

impl Changed {
    /// Remembers what was said last.
    pub(super) fn set(&self, stream: u64, priority: Priority) {
        let mut by_stream = self.by_stream();
        by_stream.insert(stream, priority);
        if by_stream.len() > MAX_CHANGED {
            by_stream.pop_first();
        }
        drop(by_stream);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// What was said of `stream`, if anything was since `seen`, which becomes now.
    pub(super) fn since(&self, seen: &mut u64, stream: u64) -> Option<Priority> {
        let version = self.version.load(Ordering::Acquire);
        if version == *seen {
            return None;
        }
        *seen = version;
        self.by_stream().get(&stream).copied()
    }

    /// Forgets a stream that has ended.
    pub(super) fn forget(&self, stream: u64) {
        if self.version.load(Ordering::Acquire) > 0 {
            self.by_stream().remove(&stream);
        }
    }

    fn by_stream(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Priority>> {
        // Nothing in there can be left half-way.
        self.by_stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> (Option<u8>, Option<bool>) {
        let priority = Priority::parse(text.as_bytes());
        (priority.urgency, priority.incremental)
    }

    #[test]
    fn what_is_malformed_says_nothing() {
        for (text, said) in [
            ("", (None, None)),
            ("u=0", (Some(0), None)),
            ("u=7, i", (Some(7), Some(true))),
            ("i=?0, other=1", (None, Some(false))),
            ("u=8", (None, None)),
            ("u=-1, i", (None, Some(true))),
            ("u=\"1\", i=1", (None, None)),
            ("u=1, i,", (None, None)),
            ("u=(1)", (None, None)),
        ] {
            assert_eq!(parse(text), said, "{text}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(Priority::of(&headers), Priority::default());
        headers.append(&PRIORITY, HeaderValue::from_static("u=1"));
        headers.append(&PRIORITY, HeaderValue::from_static("i"));
        assert_eq!(Priority::of(&headers), Priority::parse(b"u=1, i"));
    }

    #[test]
    fn urgent_streams_come_first_then_older_ones_then_those_of_use_in_part() {
        let rank = |text: &str, stream| Priority::parse(text.as_bytes()).rank(stream);
        assert!(rank("u=0", 400) > rank("u=1", 0));
        assert!(rank("", 0) > rank("", 4));
        assert!(rank("", 400) > rank("i", 0));
        assert_eq!(rank("i", 0), rank("i", 4));
        assert!(rank("u=3, i", 0) > rank("u=4", 0));
        assert_eq!(rank("", 8), rank("u=3, i=?0", 8));
    }

    #[test]
    fn a_response_overrides_what_it_names() {
        let asked = Priority::parse(b"u=5, i");
        assert_eq!(
            asked.overridden(Priority::parse(b"u=1")),
            Priority::parse(b"u=1, i")
        );
        assert_eq!(asked.overridden(Priority::default()), asked);
    }

    #[test]
    fn changes_are_seen_once_and_bounded() {
        let changed = Changed::default();
        let (mut seen, wish) = (0, Priority::parse(b"u=1"));
        assert_eq!(changed.since(&mut seen, 4), None);
        changed.set(4, wish);
        assert_eq!(changed.since(&mut seen, 4), Some(wish));
        assert_eq!(changed.since(&mut seen, 4), None);
        for stream in 0..2 * MAX_CHANGED as u64 {
            changed.set(8 + 4 * stream, wish);
        }
        assert_eq!(changed.by_stream().len(), MAX_CHANGED);
        assert_eq!(changed.since(&mut seen, 4), None);
        let last = 8 + 4 * (2 * MAX_CHANGED as u64 - 1);
        changed.forget(last);
        assert_eq!(changed.since(&mut 0, last), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), stream: u64) {
            let rank = Priority::parse(&bytes).rank(stream);
            prop_assert!(rank >= 0);
        }
    }
}
