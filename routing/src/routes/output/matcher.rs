//! Regular expressions of routes, each by the cheapest engine that can run it.
//!
//! Pure. A pattern that means a few paths is a list of them; one without look-around runs in time proportional to the
//! path; one whose look-ahead can be asked by itself is two or more of those ([`guarded`](super::guarded)); any other with
//! look-around runs under [`BACKTRACKS`]. Paths are ASCII here, so a character is a byte.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use regex_syntax::ParserBuilder;
use regex_syntax::hir::literal::{ExtractKind, Extractor, Seq};
use regex_syntax::hir::{Hir, Look};

use super::guarded::take_apart;

/// Longest pattern, in bytes, as the inventors of the format have it.
pub(super) const MAX_PATTERN_BYTES: usize = 4096;
/// Most times that a pattern with look-around may go back on one text. What people write goes back a few times for each
/// part of a path.
pub(super) const BACKTRACKS: usize = 4_000;
/// Largest compiled pattern, in bytes: what people write takes a few thousand.
const COMPILED_BYTES: usize = 256 * 1024;
/// Deepest nesting of groups.
const NESTING: u32 = 50;

/// A pattern that can be run.
#[derive(Debug)]
pub(super) struct Matcher {
    engine: Engine,
    /// The name of each group, the whole match among them.
    names: Vec<Option<Box<str>>>,
}

#[derive(Debug)]
enum Engine {
    /// Just these texts.
    Exact {
        texts: Vec<Box<[u8]>>,
        case_sensitive: bool,
    },
    Plain(regex::bytes::Regex),
    /// And these hold, or do not.
    Guarded(regex::bytes::Regex, Vec<(bool, regex::bytes::Regex)>),
    LookAround(Box<fancy_regex::Regex>),
}

/// A pattern needs more steps than it may on this text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overrun;

/// Where each group was found, the whole match first.
pub(super) type Groups = Vec<Option<Range<usize>>>;

/// What is known of a pattern without running it, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Literals {
    /// Every text it fits starts with one of these; with anything, if there is none.
    pub(super) prefixes: Vec<Vec<u8>>,
    /// And ends with one of these.
    pub(super) suffixes: Vec<Vec<u8>>,
}

impl Matcher {
    /// Compiles `pattern`, which has to hold for a whole text.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(super) fn new(pattern: &str, case_sensitive: bool) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!("is longer than {MAX_PATTERN_BYTES} bytes"));
        }
        let pattern = anchored(pattern);
        if let Some((texts, true)) = exact(&pattern) {
            return Ok(Self {
                engine: Engine::Exact {
                    texts,
                    case_sensitive,
                },
                names: Vec::from([None]),
            });
        }
        if parse(&pattern).is_some() {
            let plain = compiled(&pattern, case_sensitive)?;
            let names = names_of(&plain);
            return Ok(Self {
                names,
                engine: Engine::Plain(plain),
            });
        }
        nests_within(&pattern)?;
        if let Some(parts) = take_apart(&pattern)
            && let Ok(base) = compiled(&parts.base, case_sensitive)
        {
            let guards = parts
                .guards
                .iter()
                .map(|(wanted, guard)| Ok((*wanted, compiled(guard, case_sensitive)?)));
            if let Ok(guards) = guards.collect::<Result<_, String>>() {
                let names = names_of(&base);
                return Ok(Self {
                    names,
                    engine: Engine::Guarded(base, guards),
                });
            }
        }
        let fancy = fancy_regex::RegexBuilder::new(&pattern)
            .bytes_mode(fancy_regex::BytesMode::Ascii)
            .case_insensitive(!case_sensitive)
            .backtrack_limit(BACKTRACKS)
            .delegate_size_limit(COMPILED_BYTES)
            .max_prog_size(COMPILED_BYTES / 16)
            .build()
            .map_err(|error| one_line(&error.to_string()))?;
        let names = fancy.capture_names().map(|name| name.map(Box::from));
        Ok(Self {
            names: names.collect(),
            engine: Engine::LookAround(Box::new(fancy)),
        })
    }

    /// Whether it needs to go back.
    pub(super) const fn looks_around(&self) -> bool {
        matches!(self.engine, Engine::LookAround(_))
    }

    /// The names of its groups, by their number.
    pub(super) fn names(&self) -> &[Option<Box<str>>] {
        &self.names
    }

    /// Whether it fits `text`.
    pub(super) fn fits(&self, text: &str) -> Result<bool, Overrun> {
        match &self.engine {
            Engine::Exact {
                texts,
                case_sensitive,
            } => Ok(texts.iter().any(|one| {
                if *case_sensitive {
                    **one == *text.as_bytes()
                } else {
                    one.eq_ignore_ascii_case(text.as_bytes())
                }
            })),
            Engine::Plain(plain) => Ok(plain.is_match(text.as_bytes())),
            Engine::Guarded(base, guards) => {
                Ok(hold(guards, text) && base.is_match(text.as_bytes()))
            }
            Engine::LookAround(fancy) => fancy.is_match(text.as_bytes()).map_err(|_| Overrun),
        }
    }

    /// Where its groups lie in `text`, if it fits.
    pub(super) fn groups(&self, text: &str) -> Result<Option<Groups>, Overrun> {
        match &self.engine {
            Engine::Exact { .. } => Ok(self.fits(text)?.then(|| Vec::from([Some(0..text.len())]))),
            Engine::Plain(plain) => Ok(groups_of(plain, text)),
            Engine::Guarded(base, guards) => {
                Ok(hold(guards, text).then(|| groups_of(base, text)).flatten())
            }
            Engine::LookAround(fancy) => {
                let found = fancy.captures(text.as_bytes()).map_err(|_| Overrun)?;
                Ok(found.map(|found| {
                    let groups = found.iter();
                    groups
                        .map(|one| one.map(|one| one.start()..one.end()))
                        .collect()
                }))
            }
        }
    }
}

fn compiled(pattern: &str, case_sensitive: bool) -> Result<regex::bytes::Regex, String> {
    regex::bytes::RegexBuilder::new(pattern)
        .unicode(false)
        .case_insensitive(!case_sensitive)
        .size_limit(COMPILED_BYTES)
        .nest_limit(NESTING)
        .build()
        .map_err(|error| one_line(&error.to_string()))
}

fn names_of(pattern: &regex::bytes::Regex) -> Vec<Option<Box<str>>> {
    pattern
        .capture_names()
        .map(|name| name.map(Box::from))
        .collect()
}

fn hold(guards: &[(bool, regex::bytes::Regex)], text: &str) -> bool {
    guards
        .iter()
        .all(|(wanted, guard)| guard.is_match(text.as_bytes()) == *wanted)
}

fn groups_of(pattern: &regex::bytes::Regex, text: &str) -> Option<Groups> {
    if !pattern.is_match(text.as_bytes()) {
        return None;
    }
    let found = pattern.captures(text.as_bytes())?;
    Some(found.iter().map(|one| one.map(|one| one.range())).collect())
}

/// What starts and ends every text that `pattern` fits.
pub(super) fn literals(pattern: &str) -> Literals {
    let pattern = without_look_around(&anchored(pattern));
    let Some(hir) = parse(&pattern) else {
        return Literals::default();
    };
    let properties = hir.properties();
    let of = |kind: ExtractKind, anchored: bool| {
        if !anchored {
            return Vec::new();
        }
        let mut found: Vec<Vec<u8>> = extracted(&hir, kind)
            .and_then(|found| {
                let all = found.literals()?;
                Some(
                    all.iter()
                        .map(|one| one.as_bytes().to_ascii_lowercase())
                        .collect(),
                )
            })
            .unwrap_or_default();
        if found.iter().any(Vec::is_empty) {
            found.clear();
        }
        found.sort();
        found.dedup();
        found
    };
    Literals {
        prefixes: of(
            ExtractKind::Prefix,
            properties.look_set_prefix().contains(Look::Start),
        ),
        suffixes: of(
            ExtractKind::Suffix,
            properties.look_set_suffix().contains(Look::End),
        ),
    }
}

fn extracted(hir: &Hir, kind: ExtractKind) -> Option<Seq> {
    let mut extractor = Extractor::new();
    extractor
        .kind(kind)
        .limit_class(4)
        .limit_repeat(4)
        .limit_literal_len(64)
        .limit_total(32);
    let mut found = extractor.extract(hir);
    found.dedup();
    found.is_finite().then_some(found)
}

/// The texts that `pattern` starts with, and whether those are all that it fits.
fn exact(pattern: &str) -> Option<(Vec<Box<[u8]>>, bool)> {
    let hir = parse(pattern)?;
    let properties = hir.properties();
    let looks = properties.look_set();
    let whole = properties.explicit_captures_len() == 0
        && looks.len() == 2
        && properties.look_set_prefix().contains(Look::Start)
        && properties.look_set_suffix().contains(Look::End)
        // More than the two would be within the text, where neither holds.
        && pattern.matches(['^', '$']).count() == 2;
    let found = extracted(&hir, ExtractKind::Prefix)?;
    let texts = found
        .literals()?
        .iter()
        .map(|one| one.as_bytes().into())
        .collect();
    Some((texts, whole && found.is_exact()))
}

/// None when it has look-around, or is no pattern at all.
fn parse(pattern: &str) -> Option<Hir> {
    ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .nest_limit(NESTING)
        .build()
        .parse(pattern)
        .ok()
}

/// With an anchor at both ends, and slashes as they are.
pub(super) fn anchored(pattern: &str) -> String {
    let mut whole = String::with_capacity(pattern.len() + 2);
    if !pattern.starts_with('^') {
        whole.push('^');
    }
    whole.push_str(&pattern.replace("\\/", "/"));
    let escaped = pattern.strip_suffix('$').is_some_and(|before| {
        before
            .bytes()
            .rev()
            .take_while(|byte| *byte == b'\\')
            .count()
            % 2
            == 1
    });
    if !pattern.ends_with('$') || escaped {
        whole.push('$');
    }
    whole
}

/// `pattern` with nothing in the place of each look-around: it fits at least what `pattern` fits.
fn without_look_around(pattern: &str) -> String {
    let mut kept = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        if next == '('
            && ["(?=", "(?!", "(?<=", "(?<!"]
                .iter()
                .any(|start| rest.starts_with(start))
        {
            kept.push_str("(?:)");
            rest = &rest[group_end(rest).unwrap_or(rest.len())..];
            continue;
        }
        let taken = unit(rest);
        kept.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    kept
}

/// Bytes of what stands for itself at the start of `rest`: a class, an escape or a character.
pub(super) fn unit(rest: &str) -> usize {
    let first = rest.chars().next().map_or(0, char::len_utf8);
    match rest.as_bytes() {
        [b'\\', ..] => {
            let escaped = rest[1..].chars().next().map_or(0, char::len_utf8);
            1 + escaped
        }
        [b'[', ..] => {
            let mut at = 1;
            if rest[at..].starts_with('^') {
                at += 1;
            }
            if rest[at..].starts_with(']') {
                at += 1;
            }
            while let Some(next) = rest[at..].chars().next() {
                match next {
                    ']' => return at + 1,
                    '\\' => at += 1 + rest[at + 1..].chars().next().map_or(0, char::len_utf8),
                    other => at += other.len_utf8(),
                }
            }
            rest.len()
        }
        _ => first,
    }
}

/// Bytes of the group that `rest` starts with, if it ends.
pub(super) fn group_end(rest: &str) -> Option<usize> {
    let (mut at, mut open) = (0, 0_usize);
    while at < rest.len() {
        match rest.as_bytes()[at] {
            b'(' => open += 1,
            b')' => {
                open -= 1;
                if open == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += unit(&rest[at..]);
    }
    None
}

/// Groups too deep would be followed by calls as deep.
fn nests_within(pattern: &str) -> Result<(), String> {
    let (mut at, mut open) = (0, 0_u32);
    while at < pattern.len() {
        match pattern.as_bytes()[at] {
            b'(' => open += 1,
            b')' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > NESTING {
            return Err(format!("has more than {NESTING} groups in one another"));
        }
        at += unit(&pattern[at..]);
    }
    Ok(())
}

/// What a library says about a pattern over several lines, in one.
fn one_line(message: &str) -> String {
    let last = message
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty());
    let text = last
        .unwrap_or("cannot be read")
        .trim_start_matches("error: ");
    format!(
        "is no pattern: {}",
        text.chars().take(200).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind(pattern: &str) -> &'static str {
        match Matcher::new(pattern, true).unwrap().engine {
            Engine::Exact { .. } => "exact",
            Engine::Plain(_) => "plain",
            Engine::Guarded(..) => "guarded",
            Engine::LookAround(_) => "look-around",
        }
    }

    #[test]
    fn each_pattern_runs_on_the_cheapest_engine() {
        for (pattern, expected) in [
            ("/old", "exact"),
            ("^/old$", "exact"),
            ("^\\/old(?:/)?$", "exact"),
            ("/(?:a|b)/c", "exact"),
            ("/(old)", "plain"),
            ("^/blog/[^/]+$", "plain"),
            ("^/(?:.*)$", "plain"),
            ("^/(?!api/).*$", "guarded"),
            ("^/(?:(?!api/).)*$", "look-around"),
            ("^/(.)\\1$", "look-around"),
            ("a^b", "plain"),
        ] {
            assert_eq!(kind(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_holds_for_the_whole_path_whatever_engine_runs_it() {
        for (pattern, path, sensitive, expected) in [
            ("/old", "/old", true, true),
            ("/old", "/OLD", true, false),
            ("/old", "/OLD", false, true),
            ("/old", "/old/", true, false),
            ("/old", "/older", true, false),
            ("/old/?", "/old/", true, true),
            ("^/a/[a-c]$", "/a/B", false, true),
            ("/cost\\$", "/cost$", true, true),
            ("^(?!/api/).*$", "/api/x", true, false),
            ("^(?!/api/).*$", "/API/x", false, false),
            ("^(?!/api/).*$", "/apis", true, true),
            ("^/(?:(?!_next).)*$", "/a/b", true, true),
            ("^/((?!.+\\.rsc).+?)(?:/)?$", "/a.rsc", true, false),
        ] {
            let matcher = Matcher::new(pattern, sensitive).unwrap();
            assert_eq!(matcher.fits(path), Ok(expected), "{pattern} {path}");
            assert_eq!(
                matcher.groups(path).map(|found| found.is_some()),
                Ok(expected),
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn what_starts_and_ends_a_path_is_known_beforehand() {
        let texts = |all: Vec<Vec<u8>>| -> Vec<String> {
            all.into_iter()
                .map(|one| String::from_utf8(one).unwrap())
                .collect()
        };
        for (pattern, prefixes, suffixes) in [
            ("/Old", &["/old"][..], &["/old"][..]),
            ("^/blog/(?<slug>[^/]+?)$", &["/blog/"], &[]),
            ("^/blog/(?!draft)([^/]+)\\.html$", &["/blog/"], &[".html"]),
            ("^/(?:de|fr)/x", &["/de/x", "/fr/x"], &["/de/x", "/fr/x"]),
            ("^(?:/(.*))?$", &[], &[]),
            ("^/((?!api).*)$", &["/"], &[]),
            ("^/a$|b", &[], &["/a", "b"]),
            ("^.*\\.(?:js|css)$", &[], &[".css", ".js"]),
            ("^/x(?=[)(])y", &["/xy"], &["/xy"]),
        ] {
            let found = literals(pattern);
            assert_eq!(texts(found.prefixes), prefixes, "{pattern}");
            assert_eq!(texts(found.suffixes), suffixes, "{pattern}");
        }
    }

    #[test]
    fn patterns_that_cannot_be_run_are_told_in_one_line() {
        for pattern in ["^/(", "^/[", "^/(?!a", "(?!x){9999999}"] {
            let error = Matcher::new(pattern, true).unwrap_err();
            assert!(
                !error.contains('\n') && !error.is_empty(),
                "{pattern}: {error}"
            );
        }
        assert!(Matcher::new(&"a".repeat(MAX_PATTERN_BYTES + 1), true).is_err());
        assert!(
            Matcher::new(
                &format!("(?!x){}{}", "(".repeat(200), ")".repeat(200)),
                true
            )
            .is_err()
        );
        assert!(Matcher::new("(?:(?:[^/]{0,1000}){0,1000}){0,1000}", true).is_err());
    }

    #[test]
    fn a_hostile_path_ends_at_the_limit() {
        let matcher = Matcher::new("^/(?!x)(?:(?=a)(?:a|aa)(?!x))+b$", true).unwrap();
        let path = format!("/{}bc", "a".repeat(60));
        assert_eq!(matcher.fits(&path), Err(Overrun));
    }

    proptest! {
        #[test]
        fn a_guarded_pattern_finds_what_it_would_with_look_around(
            pattern in r"\^(/|a|\(|\(\?:|\)|\(\?!a\|b/\)|\(\?=b\)|\.\*|[^/]\+\?|b\?|\|){1,8}\$",
            path in "/?[abAB/]{0,6}",
            sensitive: bool,
        ) {
            if let Ok(matcher) = Matcher::new(&pattern, sensitive)
                && matches!(matcher.engine, Engine::Guarded(..))
            {
                let fancy = fancy_regex::RegexBuilder::new(&pattern)
                    .bytes_mode(fancy_regex::BytesMode::Ascii)
                    .case_insensitive(!sensitive)
                    .build();
                // It does not take one repetition of another.
                let Ok(fancy) = fancy else { return Ok(()) };
                let theirs = fancy.captures(path.as_bytes()).unwrap();
                let theirs: Option<Groups> = theirs.map(|found| found.iter().map(|one| one.map(|one| one.start()..one.end())).collect());
                prop_assert_eq!(matcher.groups(&path), Ok(theirs), "{} on {}", pattern, path);
            }
        }

        #[test]
        fn literals_never_keep_out_what_a_pattern_fits(
            pattern in r"\^?(/|a|B|\[a-c\]|\(\?:a\|b\)|\(\?!a\)|\(\?=b\)|\.\*|[^/]\+|b\?|\(a\)){1,6}\$?",
            path in "/?[abcABC/]{0,6}",
            sensitive: bool,
        ) {
            if let Ok(matcher) = Matcher::new(&pattern, sensitive)
                && matcher.fits(&path) == Ok(true)
            {
                let known = literals(&pattern);
                let lower = path.to_ascii_lowercase();
                let starts = known.prefixes.iter().any(|one| lower.as_bytes().starts_with(one));
                let ends = known.suffixes.iter().any(|one| lower.as_bytes().ends_with(one));
                prop_assert!(starts || known.prefixes.is_empty(), "{pattern} {path}");
                prop_assert!(ends || known.suffixes.is_empty(), "{pattern} {path}");
            }
        }
    }
}
