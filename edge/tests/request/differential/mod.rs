//! Requests made at random, as several parsers read them: what ours takes, all take, and read the same.
//!
//! Case after case comes from a seed; a failure prints the one it came from, and `HELIX_CASE_SEED=<n>` runs that alone.
//! `HELIX_CASES=<n>` runs that many. What is compared, and which differences are known, stands in
//! `docs/decisions/0090-one-reading-of-a-request.md`.

mod cases;
mod llhttp;
mod ours;
mod pingora;

use std::collections::BTreeMap;
use std::ops::Range;

/// The request that follows each case on its connection: whoever ends a message too early or too late reads another.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";

/// The seeds to run: `usual` many, or as the environment says.
fn seeds(usual: u64) -> Range<u64> {
    if let Some(seed) = number("HELIX_CASE_SEED") {
        return seed..seed + 1;
    }
    0..number("HELIX_CASES").unwrap_or(usual)
}

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap())
}

/// What went differently: how often, and the first case, by what the other parser said.
#[derive(Default)]
struct Differences(BTreeMap<String, (usize, String)>);

impl Differences {
    fn add(&mut self, seed: u64, bytes: &[u8], ours: &Read, theirs: &Read) {
        let kind = match theirs {
            Read::Refused(why) => why.clone(),
            Read::Incomplete => "waits for more".to_owned(),
            Read::Message(_) => "another message".to_owned(),
        };
        let shown = || {
            let bytes = escaped(bytes).replace("\\r\\n", "\\r\\n\n");
            format!("HELIX_CASE_SEED={seed}\n{bytes}ours:   {ours:?}\ntheirs: {theirs:?}\n")
        };
        let (count, _) = self.0.entry(kind).or_insert_with(|| (0, shown()));
        *count += 1;
    }

    fn assert_none(&self) {
        let all: Vec<_> = self
            .0
            .values()
            .map(|(count, first)| format!("{count} like\n{first}"))
            .collect();
        assert!(all.is_empty(), "{}", all.join("\n"));
    }
}

/// Bytes as text, each in one way.
fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A message, as whoever read it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Message {
    /// Bytes from its first to its last.
    length: usize,
    method: String,
    /// As sent; in pingora's reading, path and query.
    target: String,
    /// Names in lower case, with values, escaped, in order of the names.
    fields: Vec<(String, String)>,
    /// Without the framing of chunks, escaped.
    body: String,
}

/// What became of bytes that begin with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Read {
    /// There is a whole message.
    Message(Message),
    /// There could be one if more came.
    Incomplete,
    /// There is none, and why.
    Refused(String),
}

/// How many cases ended how, by our reading.
#[derive(Debug, Default)]
struct Counted {
    messages: u32,
    incomplete: u32,
    refused: u32,
}

impl Counted {
    fn count(&mut self, read: &Read) {
        match read {
            Read::Message(_) => self.messages += 1,
            Read::Incomplete => self.incomplete += 1,
            Read::Refused(_) => self.refused += 1,
        }
    }

    /// Cases that are all refused, or none, would say nothing.
    fn assert_varied(&self, seeds: &Range<u64>) {
        let few = u32::try_from((seeds.end - seeds.start) / 5).unwrap();
        assert!(
            self.messages >= few && self.refused >= few,
            "the cases are of one kind: {self:?}"
        );
    }
}
