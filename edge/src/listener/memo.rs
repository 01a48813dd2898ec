//! Responses of this core that can be sent again as they are.
//!
//! An answer is a function of the table and of the request's head. A response that was made from one is
//! kept with everything it depended on: the table's version, the second it was made in (its `Date`), the
//! target, the host, and the value or absence of each field that the answer asked for. A request that
//! agrees in all of it cannot get anything else, so nothing of the answer has to be known here. What came
//! from an upstream is never kept.

use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
// Who finds two questions for one place makes them push each other out, and nothing else.
use foldhash::fast::RandomState;
use helix_framing::{Asked, Framing, Head};
use helix_routing::id::{ReleaseId, SiteId};
use http::{Method, StatusCode};

use crate::counted::Counted;
use crate::limits::{MEMO_BODY_BYTES, MEMO_BYTES, MEMO_SLOTS};

/// A response in bytes.
#[derive(Debug)]
pub(super) struct Kept {
    depends: Depends,
    /// Its status.
    pub(super) status: StatusCode,
    /// Its head without `Connection` and the empty line.
    pub(super) head: Box<[u8]>,
    /// Its body; none for HEAD.
    pub(super) body: Bytes,
    /// Who answered.
    pub(super) by: By,
    /// What its line in the log says of it when all of it was sent.
    pub(super) line: Box<[u8]>,
}

/// Whose answer a response is.
#[derive(Clone, Debug, Default)]
pub(super) struct By {
    /// The release, if there is one.
    pub(super) release: Option<ReleaseId>,
    /// The site that the host means, if it means one.
    pub(super) site: Option<SiteId>,
    /// Where it is counted.
    pub(super) counted: Option<Arc<Counted>>,
}

/// A response as it was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) status: StatusCode,
    pub(super) head: Vec<u8>,
    pub(super) body: Bytes,
}

#[derive(Debug)]
struct Depends {
    version: u64,
    second: u64,
    head_only: bool,
    secure: bool,
    host: Box<[u8]>,
    target: Box<[u8]>,
    /// Fields that were asked for, and those of them that had a value.
    asked: u32,
    present: u32,
    values: Box<[(u8, Box<[u8]>)]>,
}

/// A request that may have been answered before.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) head: &'a Head,
    /// What `head` was read from.
    pub(super) bytes: &'a [u8],
    pub(super) secure: bool,
    /// The table's version, loaded before it is asked.
    pub(super) version: u64,
    /// The second it is.
    pub(super) second: u64,
}

/// What is known of a question.
pub(super) enum Known {
    /// The response.
    Yes(Arc<Kept>),
    /// It is worth keeping, under this hash: it was asked before.
    Asked(u64),
    /// Nothing.
    No,
}

#[derive(Debug, Default)]
struct Slot {
    /// Hash of the last question that found nothing here.
    seen: u64,
    kept: Option<Arc<Kept>>,
}

/// What one core remembers.
#[derive(Debug)]
pub(super) struct Memo {
    slots: Box<[Slot]>,
    hasher: RandomState,
    bytes: usize,
}

impl Memo {
    pub(super) fn new() -> Self {
        let slots = (0..MEMO_SLOTS).map(|_| Slot::default()).collect();
        Self {
            slots,
            hasher: RandomState::default(),
            bytes: 0,
        }
    }

    /// What is known of `question`.
    pub(super) fn look(&mut self, question: &Question<'_>) -> Known {
        if !question.is_plain() {
            return Known::No;
        }
        let hash = question.hash(&self.hasher);
        let slot = &mut self.slots[place(hash)];
        if let Some(kept) = &slot.kept
            && kept.depends.agrees(question)
        {
            return Known::Yes(Arc::clone(kept));
        }
        // Who asks once for many things does not push out what is asked for again and again.
        if slot.seen == hash {
            return Known::Asked(hash);
        }
        slot.seen = hash;
        Known::No
    }

    /// Keeps `sent`, the response to `question`, which depended on what was `asked`.
    pub(super) fn keep(
        &mut self,
        hash: u64,
        question: &Question<'_>,
        asked: &Asked,
        sent: Sent,
        (by, line): (By, Vec<u8>),
    ) {
        let Some(asked) = asked.known_only() else {
            return;
        };
        if sent.body.len() > MEMO_BODY_BYTES {
            return;
        }
        let kept = Arc::new(Kept {
            depends: Depends::new(question, asked),
            status: sent.status,
            head: sent.head.into(),
            body: sent.body,
            by,
            line: line.into(),
        });
        self.bytes += kept.size();
        if self.bytes > MEMO_BYTES {
            self.forget();
            self.bytes = kept.size();
        }
        let old = self.slots[place(hash)].kept.replace(kept);
        self.bytes -= old.map_or(0, |old| old.size());
    }

    fn forget(&mut self) {
        self.slots.fill_with(Slot::default);
    }
}

fn place(hash: u64) -> usize {
    usize::try_from(hash % MEMO_SLOTS as u64).expect("less than the number of slots")
}

impl Kept {
    fn size(&self) -> usize {
        self.head.len() + self.body.len() + self.line.len()
    }
}

impl Question<'_> {
    /// Whether it asks for nothing that needs more than a response.
    fn is_plain(&self) -> bool {
        matches!(self.head.method, Method::GET | Method::HEAD)
            && self.head.framing == Framing::None
            && !self.head.upgrades
    }

    fn host(&self) -> &[u8] {
        self.head.host.of(self.bytes)
    }

    fn target(&self) -> &[u8] {
        self.head.target.of(self.bytes)
    }

    fn hash(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((
            self.target(),
            self.host(),
            self.head.method == Method::HEAD,
            self.secure,
        ))
    }
}

impl Depends {
    fn new(question: &Question<'_>, asked: u32) -> Self {
        let values = question.head.fields(question.bytes).values(asked);
        Self {
            version: question.version,
            second: question.second,
            head_only: question.head.method == Method::HEAD,
            secure: question.secure,
            host: question.host().into(),
            target: question.target().into(),
            asked,
            present: question.head.present & asked,
            values: values.map(|(name, value)| (name, value.into())).collect(),
        }
    }

    fn agrees(&self, question: &Question<'_>) -> bool {
        self.version == question.version
            && self.second == question.second
            && self.secure == question.secure
            && self.head_only == (question.head.method == Method::HEAD)
            && self.present == question.head.present & self.asked
            && *self.target == *question.target()
            && *self.host == *question.host()
            && (self.present == 0 || self.same_values(question))
    }

    fn same_values(&self, question: &Question<'_>) -> bool {
        let values = question.head.fields(question.bytes).values(self.asked);
        values.eq(self.values.iter().map(|(name, value)| (*name, &**value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_framing::parse;
    use http::header::ACCEPT_ENCODING;

    const PLAIN: &str = "GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n";
    const WITH: &str = "GET /a HTTP/1.1\r\nHost: a.example\r\nAccept-Encoding: br\r\nX: y\r\n\r\n";

    fn known(memo: &mut Memo, text: &str, version: u64, second: u64) -> Known {
        memo.look(&question(
            &parse(text.as_bytes()).unwrap(),
            text,
            version,
            second,
        ))
    }

    fn question<'a>(head: &'a Head, text: &'a str, version: u64, second: u64) -> Question<'a> {
        Question {
            head,
            bytes: text.as_bytes(),
            secure: false,
            version,
            second,
        }
    }

    /// A memo that has kept the answer to `text`, which asked for `Accept-Encoding`.
    fn memo_of(text: &str) -> Memo {
        let mut memo = Memo::new();
        assert!(matches!(known(&mut memo, text, 1, 1), Known::No));
        let Known::Asked(hash) = known(&mut memo, text, 1, 1) else {
            unreachable!("it was asked before");
        };
        let head = parse(text.as_bytes()).unwrap();
        let asked = Asked::default();
        let lines = head.fields(text.as_bytes()).noted(&asked);
        let _ = lines.first(&ACCEPT_ENCODING);
        let sent = Sent {
            status: StatusCode::OK,
            head: b"head".to_vec(),
            body: Bytes::from_static(b"body"),
        };
        memo.keep(
            hash,
            &question(&head, text, 1, 1),
            &asked,
            sent,
            Default::default(),
        );
        memo
    }

    #[test]
    fn a_response_is_used_again_only_where_everything_it_depended_on_is_the_same() {
        for text in [PLAIN, WITH] {
            let mut memo = memo_of(text);
            let hit = |memo: &mut Memo, text: &str, version, second| {
                matches!(known(memo, text, version, second), Known::Yes(_))
            };
            assert!(hit(&mut memo, text, 1, 1));
            assert!(!hit(&mut memo, text, 2, 1), "the table has changed");
            assert!(!hit(&mut memo, text, 1, 2), "a second has passed");
            for (from, to) in [
                ("GET", "HEAD"),
                ("GET", "POST"),
                ("/a", "/b"),
                ("/a", "/a?x"),
                ("a.example", "b.example"),
                ("Host:", "Accept-Encoding: gzip\r\nHost:"),
                ("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\n"),
            ] {
                let other = text.replacen(from, to, 1);
                assert!(!hit(&mut memo, &other, 1, 1), "{other:?}");
            }
            let unasked = text.replacen("Host:", "Cookie: a\r\nHost:", 1);
            assert!(hit(&mut memo, &unasked, 1, 1), "{unasked:?}");
        }
        assert!(!matches!(
            known(&mut memo_of(WITH), PLAIN, 1, 1),
            Known::Yes(_)
        ));
        assert!(!matches!(
            known(&mut memo_of(PLAIN), WITH, 1, 1),
            Known::Yes(_)
        ));
    }

    #[test]
    fn an_answer_that_asked_for_a_field_without_a_number_is_never_kept() {
        let mut memo = Memo::new();
        let head = parse(WITH.as_bytes()).unwrap();
        let asked = Asked::default();
        let _ = head
            .fields(WITH.as_bytes())
            .noted(&asked)
            .first(&http::HeaderName::from_static("x"));
        let sent = Sent {
            status: StatusCode::OK,
            head: Vec::new(),
            body: Bytes::new(),
        };
        known(&mut memo, WITH, 1, 1);
        let Known::Asked(hash) = known(&mut memo, WITH, 1, 1) else {
            unreachable!("it was asked before");
        };
        memo.keep(
            hash,
            &question(&head, WITH, 1, 1),
            &asked,
            sent,
            Default::default(),
        );
        assert!(matches!(known(&mut memo, WITH, 1, 1), Known::Asked(_)));
    }
}
