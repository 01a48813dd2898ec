//! Which paths a rule is for.
//!
//! Pure. `:name` is one whole part of a path, `*` is any text; a `*` that is a whole part also matches when there is
//! nothing, not even a slash of its own. A slash at the end makes no difference. Matching takes time
//! in proportion to path times pattern: a later `*` never makes an earlier one be tried again.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::path::decode;

/// Longest pattern, in bytes: no path of a release is longer.
pub(super) const MAX_PATTERN_BYTES: usize = 1024;
/// Most `*` and `:name` in one pattern.
pub(super) const MAX_WILDCARDS: usize = 8;

/// What the last `*` of a pattern is called in a target.
const SPLAT: &str = "splat";

/// Paths that a rule is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    source: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(String),
    /// One whole part.
    Part(String),
    /// Any text.
    Any,
    /// Nothing, or any text and a slash; behind a slash, and before another part.
    Parts,
    /// Nothing, or a slash and any text; the last token.
    Tail,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path {0}")]
pub struct InvalidPattern(&'static str);

/// What the wildcards of a pattern stood for: name and text.
pub(super) type Captures<'a> = Vec<(&'a str, &'a str)>;

impl Pattern {
    /// Reads `source`, the path of a rule.
    ///
    /// # Errors
    /// When it is no path, or has wildcards where they cannot be.
    pub fn parse(source: &str) -> Result<Self, InvalidPattern> {
        if source.len() > MAX_PATTERN_BYTES {
            return Err(InvalidPattern("is longer than 1024 bytes"));
        }
        let decoded = decode(source)
            .map_err(|_| InvalidPattern("cannot be that of any file"))?
            .ok_or(InvalidPattern("does not start with a slash"))?;
        let path = decoded.path.strip_suffix('/').unwrap_or(&decoded.path);
        let mut tokens = Vec::new();
        let mut literal = String::new();
        let parts: Vec<&str> = path.split('/').filter(|_| !path.is_empty()).collect();
        for (at, part) in parts.iter().copied().enumerate() {
            let next = parts.get(at + 1);
            if part == "*" && next.is_none() {
                flush(&mut literal, &mut tokens);
                tokens.push(Token::Tail);
                break;
            }
            if at > 0 && !(literal.is_empty() && tokens.last() == Some(&Token::Parts)) {
                literal.push('/');
            }
            if part == "*" && next.is_some_and(|next| *next != "*") {
                flush(&mut literal, &mut tokens);
                tokens.push(Token::Parts);
                continue;
            }
            if let Some(name) = part.strip_prefix(':') {
                let named = !name.is_empty()
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                if !named {
                    return Err(InvalidPattern(
                        "has a placeholder whose name is not made of letters, digits and `_`",
                    ));
                }
                flush(&mut literal, &mut tokens);
                tokens.push(Token::Part(name.to_owned()));
                continue;
            }
            for (at, text) in part.split('*').enumerate() {
                if at > 0 {
                    flush(&mut literal, &mut tokens);
                    tokens.push(Token::Any);
                }
                literal.push_str(text);
            }
        }
        flush(&mut literal, &mut tokens);
        let wildcards = tokens
            .iter()
            .filter(|token| !matches!(token, Token::Literal(_)));
        if wildcards.count() > MAX_WILDCARDS {
            return Err(InvalidPattern("has more than 8 wildcards"));
        }
        Ok(Self {
            source: source.to_owned(),
            tokens,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// The one path it is for, if it has no wildcard; without slashes around it.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        match self.tokens.as_slice() {
            [] => Some(""),
            [Token::Literal(path)] => Some(path),
            _ => None,
        }
    }

    /// How many `*` it has.
    #[must_use]
    pub fn stars(&self) -> usize {
        self.tokens
            .iter()
            .filter(|token| matches!(token, Token::Any | Token::Parts | Token::Tail))
            .count()
    }

    /// The names that a target may use.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter_map(|token| match token {
            Token::Literal(_) => None,
            Token::Part(name) => Some(name.as_str()),
            Token::Any | Token::Parts | Token::Tail => Some(SPLAT),
        })
    }

    /// What its wildcards stand for in `path`, decoded and without the slash at its start; none when it is
    /// not for that path.
    #[must_use]
    pub(super) fn captures<'a>(&'a self, path: &'a str, case: Case) -> Option<Captures<'a>> {
        let mut captures = Vec::new();
        let at_root = matches!(self.tokens.first(), Some(Token::Tail));
        let found = step(&self.tokens, path, at_root, case, &mut captures);
        (found == Step::Match).then_some(captures)
    }
}

fn flush(literal: &mut String, tokens: &mut Vec<Token>) {
    if !literal.is_empty() {
        tokens.push(Token::Literal(core::mem::take(literal)));
    }
}

/// Whether capitals make a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// They do.
    Sensitive,
    /// Not in ASCII.
    Insensitive,
}

#[derive(PartialEq, Eq)]
enum Step {
    Match,
    Mismatch,
    /// No other place for the `*` before could help either.
    Hopeless,
}

fn step<'a>(
    tokens: &'a [Token],
    path: &'a str,
    at_root: bool,
    case: Case,
    captures: &mut Captures<'a>,
) -> Step {
    let Some((token, rest)) = tokens.split_first() else {
        return if matches!(path, "" | "/") {
            Step::Match
        } else {
            Step::Mismatch
        };
    };
    match token {
        Token::Literal(literal) => match strip(path, literal, case) {
            Some(path) => step(rest, path, false, case, captures),
            None => Step::Mismatch,
        },
        Token::Part(name) => {
            let (part, path) = path.split_at(path.find('/').unwrap_or(path.len()));
            if part.is_empty() {
                return Step::Mismatch;
            }
            captures.push((name, part));
            step(rest, path, false, case, captures)
        }
        Token::Tail => {
            let tail = match path.strip_prefix('/') {
                _ if at_root => path,
                Some(tail) => tail,
                None if path.is_empty() => path,
                None => return Step::Mismatch,
            };
            captures.push((SPLAT, tail));
            Step::Match
        }
        Token::Any => any(rest, path, case, captures),
        Token::Parts => parts(rest, path, case, captures),
    }
}

/// Every place behind a slash is tried, so an earlier `*` could offer no other one.
fn parts<'a>(rest: &'a [Token], path: &'a str, case: Case, captures: &mut Captures<'a>) -> Step {
    let before = captures.len();
    let slashes = path.match_indices('/').map(|(at, _)| (at, at + 1));
    for (end, next) in core::iter::once((0, 0)).chain(slashes) {
        captures.truncate(before);
        captures.push((SPLAT, &path[..end]));
        match step(rest, &path[next..], false, case, captures) {
            Step::Mismatch => {}
            settled @ (Step::Match | Step::Hopeless) => return settled,
        }
    }
    Step::Hopeless
}

fn any<'a>(rest: &'a [Token], path: &'a str, case: Case, captures: &mut Captures<'a>) -> Step {
    let before = captures.len();
    let ends = path.char_indices().map(|(at, _)| at).chain([path.len()]);
    for end in ends {
        captures.truncate(before);
        let (text, path) = path.split_at(end);
        captures.push((SPLAT, text));
        match step(rest, path, false, case, captures) {
            Step::Mismatch => {}
            settled @ (Step::Match | Step::Hopeless) => return settled,
        }
    }
    Step::Hopeless
}

fn strip<'a>(path: &'a str, literal: &str, case: Case) -> Option<&'a str> {
    let (start, rest) = path.split_at_checked(literal.len())?;
    let same = match case {
        Case::Sensitive => start == literal,
        Case::Insensitive => start.eq_ignore_ascii_case(literal),
    };
    same.then_some(rest)
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;

    fn try_from(source: String) -> Result<Self, InvalidPattern> {
        Self::parse(&source)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.source
    }
}

/// Rules by the paths they are for, so that a request looks only at those that may be for it.
#[derive(Debug)]
pub(super) struct Index {
    case: Case,
    /// Rules for one path, in order.
    exact: HashMap<String, Vec<usize>>,
    /// The others, in order.
    wild: Vec<usize>,
}

impl Index {
    /// An index of rules, each with its number, in order.
    pub(super) fn new<'a>(case: Case, rules: impl Iterator<Item = (usize, &'a Pattern)>) -> Self {
        let mut index = Self {
            case,
            exact: HashMap::new(),
            wild: Vec::new(),
        };
        for (number, pattern) in rules {
            match pattern.exact() {
                Some(path) => index
                    .exact
                    .entry(index_key(path, case))
                    .or_default()
                    .push(number),
                None => index.wild.push(number),
            }
        }
        index
    }

    /// Whether there is no rule.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wild.is_empty()
    }

    /// The rules that may be for `path`, in order.
    pub(super) fn candidates(&self, path: &str) -> impl Iterator<Item = usize> {
        let exact = if self.exact.is_empty() {
            None
        } else {
            let path = path.strip_suffix('/').unwrap_or(path);
            let capitals = path.bytes().any(|byte| byte.is_ascii_uppercase());
            if self.case == Case::Insensitive && capitals {
                self.exact.get(&index_key(path, self.case))
            } else {
                self.exact.get(path)
            }
        };
        let mut exact = exact.into_iter().flatten().copied().peekable();
        let mut wild = self.wild.iter().copied().peekable();
        core::iter::from_fn(move || match (exact.peek(), wild.peek()) {
            (Some(a), Some(b)) if a > b => wild.next(),
            (Some(_), _) => exact.next(),
            (None, _) => wild.next(),
        })
    }
}

fn index_key(path: &str, case: Case) -> String {
    match case {
        Case::Sensitive => path.to_owned(),
        Case::Insensitive => path.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_parts_and_tails() {
        for (pattern, path, expected) in [
            ("/", "", Some(vec![])),
            ("/", "a", None),
            ("/a", "a", Some(vec![])),
            ("/a", "a/", Some(vec![])),
            ("/a/", "a", Some(vec![])),
            ("/a", "A", None),
            ("/a", "ab", None),
            ("/a%20b", "a b", Some(vec![])),
            ("/*", "", Some(vec![("splat", "")])),
            ("/*", "a/b/", Some(vec![("splat", "a/b/")])),
            ("/x/*", "x", Some(vec![("splat", "")])),
            ("/x/*", "x/", Some(vec![("splat", "")])),
            ("/x/*", "x/a/b", Some(vec![("splat", "a/b")])),
            ("/x/*", "xa", None),
            (
                "/blog/:year/:slug",
                "blog/2024/hi",
                Some(vec![("year", "2024"), ("slug", "hi")]),
            ),
            (
                "/blog/:year/:slug",
                "blog/2024/hi/",
                Some(vec![("year", "2024"), ("slug", "hi")]),
            ),
            ("/blog/:year/:slug", "blog/2024", None),
            ("/blog/:year", "blog/2024/x", None),
            ("/:a/*", "x", Some(vec![("a", "x"), ("splat", "")])),
            ("/mid/*/end", "mid/a/b/end", Some(vec![("splat", "a/b")])),
            ("/mid/*/end", "mid/a/b", None),
            ("/mid/*/end", "mid/end", Some(vec![("splat", "")])),
            ("/mid/*/end", "mid/aend", None),
            ("/mid/*/end", "midend", None),
            ("/*/end", "end/", Some(vec![("splat", "")])),
            ("/*/end", "a/b/end", Some(vec![("splat", "a/b")])),
            (
                "/*/:x/*/end",
                "a/b/end",
                Some(vec![("splat", ""), ("x", "a"), ("splat", "b")]),
            ),
            (
                "/*/*",
                "a/b/c",
                Some(vec![("splat", "a"), ("splat", "b/c")]),
            ),
            (
                "/a/*/*/b",
                "a/x/y/b",
                Some(vec![("splat", "x"), ("splat", "y")]),
            ),
            ("/*.js", "a/b.js", Some(vec![("splat", "a/b")])),
            ("/*.js", "a/b.jsx", None),
            (
                "/a*b*c",
                "axbxbxc",
                Some(vec![("splat", "x"), ("splat", "xbx")]),
            ),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(
                pattern.captures(path, Case::Sensitive),
                expected,
                "{} on {path}",
                pattern.as_str()
            );
        }
        let pattern = Pattern::parse("/Assets/*.JS").unwrap();
        assert!(pattern.captures("assets/a.js", Case::Insensitive).is_some());
    }

    #[test]
    fn what_is_no_path_is_no_pattern() {
        for source in ["", "a", "*", "/:", "/:a-b", "/..", "/%zz", "/a\\b"] {
            assert!(Pattern::parse(source).is_err(), "{source} was taken");
        }
        assert!(Pattern::parse(&"/*a".repeat(9)).is_err());
        assert!(Pattern::parse(&"/a".repeat(513)).is_err());
    }

    #[test]
    fn a_hostile_path_takes_no_longer_than_path_times_pattern() {
        for (pattern, part) in [("/*a*a*a*a*a*a*ab", "a"), ("/*/a/*/a/*/a/*/a/*/b", "a/")] {
            let pattern = Pattern::parse(pattern).unwrap();
            let path = part.repeat(8192);
            for _ in 0..20 {
                assert_eq!(pattern.captures(&path, Case::Sensitive), None);
            }
        }
    }

    #[test]
    fn an_index_names_candidates_in_order() {
        let patterns =
            ["/a", "/*", "/A/", "/b/:x", "/a"].map(|source| Pattern::parse(source).unwrap());
        let index = |case| Index::new(case, patterns.iter().enumerate());
        let named = |case, path: &str| index(case).candidates(path).collect::<Vec<_>>();
        assert_eq!(named(Case::Sensitive, "a/"), [0, 1, 3, 4]);
        assert_eq!(named(Case::Sensitive, "A"), [1, 2, 3]);
        assert_eq!(named(Case::Insensitive, "A"), [0, 1, 2, 3, 4]);
        assert_eq!(named(Case::Insensitive, "none"), [1, 3]);
    }

    proptest! {
        #[test]
        fn whatever_is_read_survives_being_written(source in "/[a-z:*/%0-9]{0,20}") {
            if let Ok(pattern) = Pattern::parse(&source) {
                prop_assert_eq!(Pattern::parse(pattern.as_str()).unwrap(), pattern);
            }
        }

        #[test]
        fn no_path_makes_it_panic(source in "/[ab:*/ä]{0,12}", path in "[ab/ä]{0,20}") {
            if let Ok(pattern) = Pattern::parse(&source) {
                let _ = pattern.captures(&path, Case::Sensitive);
            }
        }
    }
}
