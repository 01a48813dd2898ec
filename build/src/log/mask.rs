//! Secrets in bytes: found in every form in which a program is likely to print them, and hidden.
//!
//! *Pure*. The same patterns hide them in the log and find them in what was built. What is too short to be told from ordinary text is
//! let through, and so is what a program has encrypted, compressed or spelled backwards.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shorter values would hide ordinary words.
pub const SHORTEST_BYTES: usize = 5;
/// Values that say yes or no, whatever they are called.
const ORDINARY: &[&str] = &[
    "true",
    "false",
    "undefined",
    "production",
    "preview",
    "development",
];
/// Where programs break lines of base64: `base64` of GNU, and PEM.
const BASE64_LINES: [usize; 2] = [76, 64];

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Mask {
    found: Option<AhoCorasick>,
    /// In order, to tell whether bytes are the start of one.
    patterns: Vec<Vec<u8>>,
    /// The variable of each.
    names: Vec<String>,
    longest: usize,
}

impl Mask {
    /// Looks for the values of these variables.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut patterns: BTreeMap<Vec<u8>, String> = BTreeMap::new();
        for (name, value) in secrets {
            for form in forms(value) {
                patterns.entry(form).or_insert_with(|| name.to_owned());
            }
        }
        let (patterns, names): (Vec<_>, Vec<_>) = patterns.into_iter().unzip();
        let found = (!patterns.is_empty()).then(|| {
            AhoCorasick::builder()
                .match_kind(MatchKind::Standard)
                .build(&patterns)
                .expect("some hundred patterns are no more than an automaton can have")
        });
        Self {
            found,
            longest: patterns.iter().map(Vec::len).max().unwrap_or(0),
            patterns,
            names,
        }
    }

    /// Bytes of the longest pattern.
    #[must_use]
    pub const fn longest(&self) -> usize {
        self.longest
    }

    /// The variable whose value is in `bytes`, if one is.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<&str> {
        let found = self.found.as_ref()?.find(bytes)?;
        Some(&self.names[found.pattern().as_usize()])
    }

    /// A text with the values hidden.
    #[must_use]
    pub fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.find(text.as_bytes()).is_none() {
            return Cow::Borrowed(text);
        }
        let mut stream = Stream::default();
        let mut bytes = stream.push(self, text.as_bytes());
        bytes.extend(stream.finish(self));
        Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where values are, those that overlap or touch as one, each with a variable.
    fn ranges(&self, bytes: &[u8], covered: usize) -> Vec<(Range<usize>, usize)> {
        let Some(found) = &self.found else {
            return Vec::new();
        };
        let mut ranges: Vec<(Range<usize>, usize)> = found
            .find_overlapping_iter(bytes)
            .map(|found| (found.range(), found.pattern().as_usize()))
            .collect();
        if covered > 0 {
            ranges.push((0..covered, 0));
        }
        ranges.sort_by_key(|(range, _)| (range.start, usize::MAX - range.end));
        ranges.dedup_by(|(next, _), (range, _)| {
            let within = next.start < range.end;
            if within {
                range.end = range.end.max(next.end);
            }
            within
        });
        ranges
    }

    /// From where on `bytes` may be the start of a value that goes on.
    fn open_from(&self, bytes: &[u8]) -> usize {
        let first = (bytes.len() + 1).saturating_sub(self.longest);
        (first..bytes.len())
            .find(|&at| self.is_start(&bytes[at..]))
            .unwrap_or(bytes.len())
    }

    fn is_start(&self, bytes: &[u8]) -> bool {
        let at = self
            .patterns
            .partition_point(|pattern| pattern.as_slice() <= bytes);
        self.patterns
            .get(at)
            .is_some_and(|pattern| pattern.starts_with(bytes))
    }
}

/// Bytes that come in parts, of which a value may lie across several.
#[derive(Debug, Default)]
pub struct Stream {
    /// What may be the start of a value.
    held: Vec<u8>,
    /// How much of it belongs to a value that is hidden already.
    covered: usize,
}

impl Stream {
    /// Takes bytes, and gives those that can be shown.
    pub fn push(&mut self, mask: &Mask, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let end = mask.open_from(&self.held);
        self.show(mask, end)
    }

    /// Gives what was held back: no more comes.
    pub fn finish(&mut self, mask: &Mask) -> Vec<u8> {
        self.show(mask, self.held.len())
    }

    fn show(&mut self, mask: &Mask, end: usize) -> Vec<u8> {
        let (mut shown, mut at) = (Vec::with_capacity(end), 0);
        let mut covered = self.covered.saturating_sub(end);
        for (range, pattern) in mask.ranges(&self.held, self.covered) {
            if range.start >= end {
                break;
            }
            shown.extend_from_slice(&self.held[at..range.start]);
            if range.start > 0 || self.covered == 0 {
                shown.extend_from_slice(format!("[hidden {}]", mask.names[pattern]).as_bytes());
            }
            at = range.end.min(end);
            covered = range.end.saturating_sub(end);
        }
        shown.extend_from_slice(&self.held[at..end]);
        self.held.drain(..end);
        self.covered = covered;
        shown
    }
}

/// A value in every form that is looked for.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    let trimmed = value.trim();
    let lines = trimmed
        .lines()
        .map(str::trim)
        .filter(|_| trimmed.contains('\n'));
    // A key's first and last line say only what it is.
    let lines = lines.filter(|line| !line.starts_with("-----"));
    for text in [value, trimmed].into_iter().chain(lines) {
        if text.len() >= SHORTEST_BYTES && !ORDINARY.contains(&text.to_ascii_lowercase().as_str()) {
            add_forms(text, &mut forms);
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

fn add_forms(text: &str, forms: &mut Vec<Vec<u8>>) {
    let bytes = text.as_bytes();
    forms.push(bytes.to_vec());
    for hex in [hex::encode(bytes), hex::encode_upper(bytes)] {
        forms.push(hex.into_bytes());
    }
    for offset in 0..3 {
        forms.push(base64_within(bytes, offset, &STANDARD_NO_PAD));
        forms.push(base64_within(bytes, offset, &URL_SAFE_NO_PAD));
    }
    let whole = base64_within(bytes, 0, &STANDARD_NO_PAD);
    for width in BASE64_LINES {
        forms.push(whole.chunks(width).collect::<Vec<_>>().join(&b'\n'));
    }
    forms.extend(url_forms(bytes));
    forms.extend(json_forms(text));
    forms.retain(|form| form.len() >= SHORTEST_BYTES);
}

/// What of the base64 of a longer text, in which the value begins `offset` bytes behind a multiple of three, depends on the value alone.
fn base64_within(bytes: &[u8], offset: usize, engine: &impl base64::Engine) -> Vec<u8> {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(bytes);
    let encoded = engine.encode(&padded).into_bytes();
    let first = (offset * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    encoded.get(first..last).unwrap_or_default().to_vec()
}

/// In a query or a form, in all usual ways of leaving characters as they are.
fn url_forms(bytes: &[u8]) -> Vec<Vec<u8>> {
    let kept: [&[u8]; 4] = [b"-_.~", b"*-._", b"-_.!~*'()", b"-_.~/:@!$&'()*+,;="];
    let mut forms = Vec::new();
    for kept in kept {
        for (space, upper) in [("%20", true), ("%20", false), ("+", true)] {
            let mut form = Vec::new();
            for &byte in bytes {
                match byte {
                    b' ' => form.extend_from_slice(space.as_bytes()),
                    byte if byte.is_ascii_alphanumeric() || kept.contains(&byte) => form.push(byte),
                    byte if upper => form.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                    byte => form.extend_from_slice(format!("%{byte:02x}").as_bytes()),
                }
            }
            forms.push(form);
        }
    }
    forms
}

/// Within a string of JSON or of a script.
fn json_forms(text: &str) -> Vec<Vec<u8>> {
    let plain = serde_json::to_string(text).unwrap_or_default();
    let plain = plain
        .trim_start_matches('"')
        .strip_suffix('"')
        .unwrap_or_default()
        .to_owned();
    let mut ascii = String::new();
    for c in plain.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    let slashes = plain.replace('/', "\\/");
    let twice = plain.replace('\\', "\\\\");
    let quoted = text
        .replace('\\', "\\\\")
        .replace('\'', "\\'")
        .replace('\n', "\\n");
    [plain, ascii, slashes, twice, quoted]
        .map(String::into_bytes)
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    const VALUE: &str = "s3cr/et?+ \"ké\\y\"&=~0123456789";

    fn hidden(mask: &Mask, text: &[u8], part: usize) -> Vec<u8> {
        let (mut stream, mut shown) = (Stream::default(), Vec::new());
        for part in text.chunks(part) {
            shown.extend(stream.push(mask, part));
        }
        shown.extend(stream.finish(mask));
        shown
    }

    fn printed() -> Vec<String> {
        let encode = |prefix: &str, engine: &base64::engine::GeneralPurpose| {
            engine.encode(format!("{prefix}{VALUE}suffix"))
        };
        let mut printed = vec![
            VALUE.to_owned(),
            hex::encode(VALUE),
            hex::encode_upper(VALUE),
            serde_json::to_string(VALUE).unwrap(),
        ];
        for prefix in ["", "a", "ab", "abc"] {
            printed.extend([encode(prefix, &STANDARD), encode(prefix, &URL_SAFE)]);
        }
        let url = url::form_urlencoded::byte_serialize(VALUE.as_bytes()).collect();
        printed.push(url);
        printed
    }

    #[test]
    fn every_form_is_hidden_however_it_is_cut() {
        let mask = Mask::new([("KEY", VALUE)]);
        for form in printed() {
            let text = format!("before {form} after\n");
            for part in [1, 2, 3, 7, 64, 4096] {
                let shown = String::from_utf8(hidden(&mask, text.as_bytes(), part)).unwrap();
                assert!(shown.contains("[hidden KEY]"), "{form}: {shown}");
                assert!(
                    shown.starts_with("before ") && shown.ends_with(" after\n"),
                    "{shown}"
                );
                // What is left of base64 is at most what its neighbours share.
                assert!(
                    shown.len() <= text.len() && !shown.contains("0123456789"),
                    "{shown}"
                );
            }
        }
    }

    #[test]
    fn broken_base64_and_lines_of_a_key_are_hidden() {
        let key = format!(
            "-----BEGIN KEY-----\n{}\n{}\n-----END KEY-----\n",
            "A1b2".repeat(16),
            "C3d4".repeat(16)
        );
        let mask = Mask::new([("PEM", key.as_str())]);
        let shown = |text: &str| String::from_utf8(hidden(&mask, text.as_bytes(), 5)).unwrap();
        assert_eq!(shown(&format!("x {}", "C3d4".repeat(16))), "x [hidden PEM]");
        let encoded = STANDARD.encode(&key);
        let lines: Vec<&str> = encoded
            .as_bytes()
            .chunks(76)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let text = shown(&lines.join("\n"));
        assert!(
            text.starts_with("[hidden PEM]") && text.len() < 20,
            "{text}"
        );
    }

    #[test]
    fn values_that_overlap_leave_nothing_between_them() {
        let mask = Mask::new([("A", "abcdefgh"), ("B", "fghijklm")]);
        for part in 1..20 {
            assert_eq!(
                hidden(&mask, b"-abcdefghijklm-fghijklm.", part),
                b"-[hidden A]-[hidden B].",
                "{part}"
            );
        }
        let mask = Mask::new([("A", "aaaaa")]);
        let shown = hidden(&mask, &[b'a'; 10_000], 3);
        assert_eq!(shown, b"[hidden A]");
    }

    #[test]
    fn short_and_ordinary_values_hide_nothing() {
        let mask = Mask::new([
            ("A", "1234"),
            ("B", "false"),
            ("C", "production"),
            ("D", ""),
        ]);
        assert_eq!(
            hidden(&mask, b"1234 false production", 1),
            b"1234 false production"
        );
        assert_eq!(mask.longest(), 0);
        assert_eq!(mask.find(b"1234"), None);
    }

    #[test]
    fn what_is_no_value_is_shown_at_once() {
        let mask = Mask::new([("A", "secret-value")]);
        let mut stream = Stream::default();
        assert_eq!(stream.push(&mask, b"hello sec"), b"hello ");
        assert_eq!(stream.push(&mask, b"urity\n"), b"security\n");
        assert_eq!(mask.find(b"x secret-value y"), Some("A"));
        assert_eq!(mask.hide("x secret-value"), "x [hidden A]");
    }
}
