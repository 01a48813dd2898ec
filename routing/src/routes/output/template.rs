//! Texts of routes in which `$1`, `$name` and `$wildcard` stand for what was found.
//!
//! Pure. What is put in never ends the part of a URL that it stands in, and never adds a line to a field.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use super::matcher::Groups;

/// A text with places in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// A group of the path's pattern.
    Group(usize),
    /// A name of a condition's pattern.
    Named(Box<str>),
    Wildcard,
}

/// What places may stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// The path that was matched.
    pub(super) path: &'a str,
    /// Its groups.
    pub(super) groups: &'a Groups,
    /// Names that conditions found, and their values.
    pub(super) named: &'a [(String, String)],
    /// What `$wildcard` stands for.
    pub(super) wildcard: &'a str,
}

/// What a template becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Into {
    /// A URL or a part of one.
    Url,
    /// The value of a field.
    Field,
}

impl Template {
    /// Reads `text`; `names` are those of the groups of the path's pattern.
    pub(super) fn new(text: &str, names: &[Option<Box<str>>]) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, after) = rest.split_at(at);
            let word_end = after[1..]
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .map_or(after.len(), |end| end + 1);
            let (part, taken) = place(&after[1..word_end], names);
            push_text(&mut parts, before);
            match part {
                Some(part) => parts.push(part),
                None => push_text(&mut parts, &after[..=taken]),
            }
            rest = &after[1 + taken..];
        }
        push_text(&mut parts, rest);
        Self(parts)
    }

    /// Whether it needs groups of the path's pattern.
    pub(super) fn uses_groups(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Group(_)))
    }

    /// The text with what was `found` in its places.
    pub(super) fn expand(&self, found: Found<'_>, into: Into) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Group(at) => {
                    let range = found.groups.get(*at).cloned().flatten();
                    // Of the path, so escaped as it was there.
                    text.push_str(
                        range
                            .and_then(|range| found.path.get(range))
                            .unwrap_or_default(),
                    );
                }
                Part::Named(name) => {
                    let value = found.named.iter().find(|(known, _)| **known == **name);
                    put(value.map_or("", |(_, value)| value), into, &mut text);
                }
                Part::Wildcard => put(found.wildcard, into, &mut text),
            }
        }
        text
    }
}

/// What `$` and `word` stand for, and how much of the word belongs to it.
fn place(word: &str, names: &[Option<Box<str>>]) -> (Option<Part>, usize) {
    if word == "wildcard" {
        return (Some(Part::Wildcard), word.len());
    }
    let shorter = word.find('_').map_or(word, |end| &word[..end]);
    for name in [word, shorter] {
        if let Some(at) = names
            .iter()
            .position(|known| known.as_deref() == Some(name))
        {
            return (Some(Part::Group(at)), name.len());
        }
    }
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 {
        return (word[..digits].parse().ok().map(Part::Group), digits);
    }
    if word.is_empty() {
        return (None, 0);
    }
    (Some(Part::Named(word.into())), word.len())
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(last)) => *last = [&**last, text].concat().into(),
        _ => parts.push(Part::Text(text.to_owned().into())),
    }
}

fn put(value: &str, into: Into, out: &mut String) {
    for byte in value.bytes() {
        let plain = match into {
            Into::Url => {
                byte.is_ascii_alphanumeric()
                    || matches!(
                        byte,
                        b'-' | b'.' | b'_' | b'~' | b'@' | b':' | b',' | b'+' | b'/'
                    )
            }
            Into::Field => (0x20..0x7f).contains(&byte),
        };
        if plain {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes everything");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stand_for_groups_names_and_the_wildcard() {
        let names = [None, Some("slug".into()), None];
        let path = "/a/b%20c";
        let groups = Vec::from([Some(0..8), Some(1..2), Some(3..8)]);
        let named = [("token".to_owned(), "x&y/ü\r\n".to_owned())];
        let found = Found {
            path,
            groups: &groups,
            named: &named,
            wildcard: "de",
        };
        for (text, url, field) in [
            ("/x", "/x", "/x"),
            ("/$1/$2", "/a/b%20c", "/a/b%20c"),
            ("$0", "/a/b%20c", "/a/b%20c"),
            (
                "/$slug.html?q=$token",
                "/a.html?q=x%26y/%C3%BC%0D%0A",
                "/a.html?q=x&y/%C3%BC%0D%0A",
            ),
            ("/$slug_1/$1_$2", "/a_1/a_b%20c", "/a_1/a_b%20c"),
            ("/$wildcard/$nobody/$9/$", "/de///$", "/de///$"),
            ("$1x$$2", "ax$b%20c", "ax$b%20c"),
        ] {
            let template = Template::new(text, &names);
            assert_eq!(template.expand(found, Into::Url), url, "{text}");
            assert_eq!(template.expand(found, Into::Field), field, "{text}");
        }
        assert!(Template::new("/$slug", &names).uses_groups());
        assert!(!Template::new("/$token", &names).uses_groups());
    }
}
