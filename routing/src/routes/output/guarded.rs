//! Look-ahead that can be asked by itself: `^/((?!api/|_next/).*)$` fits what `^/(.*)$` fits and what starts with
//! neither `/api/` nor `/_next/`.
//!
//! Pure. That holds where only fixed text stands before it, and every match passes it: no group around it may be left out,
//! repeated, or have another way. What build tools write is nearly always so, and then nothing ever goes back.

use alloc::string::String;
use alloc::vec::Vec;

use super::matcher::{group_end, unit};

/// A pattern in parts, none of which looks around.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Guarded {
    /// The pattern without look-ahead.
    pub(super) base: String,
    /// What must, or must not, stand at the start, as patterns.
    pub(super) guards: Vec<(bool, String)>,
}

/// The parts of `pattern`, if it can be taken apart.
pub(super) fn take_apart(pattern: &str) -> Option<Guarded> {
    let mut rest = pattern.strip_prefix('^')?;
    let (mut base, mut fixed) = (String::from("^"), String::from("^"));
    let mut guards = Vec::new();
    let mut open = 0_usize;
    loop {
        let ahead = [("(?!", false), ("(?=", true)];
        if let Some((start, wanted)) = ahead.into_iter().find(|(start, _)| rest.starts_with(start))
        {
            let end = group_end(rest)?;
            let inner = rest.get(start.len()..end - 1)?;
            guards.push((wanted, [&fixed, "(?:", inner, ")"].concat()));
            rest = &rest[end..];
            if is_repeated(rest) {
                return None;
            }
            continue;
        }
        // What opens from here on lies behind it, and may have as many ways as it likes.
        if !guards.is_empty() {
            break;
        }
        let taken = match opening(rest) {
            Some(taken) => {
                open += 1;
                taken
            }
            None => {
                let taken = unit(rest);
                if taken == 0 || !is_literal(&rest[..taken]) || is_repeated(&rest[taken..]) {
                    break;
                }
                fixed.push_str(&rest[..taken]);
                taken
            }
        };
        base.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    if guards.is_empty() || !passes_always(rest, open) {
        return None;
    }
    base.push_str(rest);
    Some(Guarded { base, guards })
}

/// Bytes of what opens a group, which looks nowhere.
fn opening(rest: &str) -> Option<usize> {
    if rest.starts_with("(?:") {
        return Some(3);
    }
    if rest.starts_with("(?<") && !rest.starts_with("(?<=") && !rest.starts_with("(?<!") {
        return rest.find('>').map(|end| end + 1);
    }
    (rest.starts_with('(') && !rest.starts_with("(?")).then_some(1)
}

/// Whether `text` stands for itself.
fn is_literal(text: &str) -> bool {
    match text.as_bytes() {
        [b'\\', escaped] => escaped.is_ascii_punctuation(),
        [one] => one.is_ascii() && !b"()[]{}.*+?|^$\\".contains(one),
        _ => false,
    }
}

fn is_repeated(rest: &str) -> bool {
    rest.starts_with(['?', '*', '+', '{'])
}

/// Whether none of the `open` groups, which end in `rest`, has another way or may be left out.
fn passes_always(rest: &str, mut open: usize) -> bool {
    let (mut at, mut inner) = (0, 0_usize);
    while at < rest.len() {
        let taken = unit(&rest[at..]);
        match rest.as_bytes()[at] {
            b'(' => inner += 1,
            b')' if inner > 0 => inner -= 1,
            b')' => {
                if open == 0 || is_repeated(&rest[at + 1..]) {
                    return false;
                }
                open -= 1;
            }
            b'|' if inner == 0 => return false,
            _ => {}
        }
        at += taken;
    }
    open == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_ahead_that_every_match_passes_is_asked_by_itself() {
        for (pattern, base, guards) in [
            (
                "^/((?!api/|_next).*)$",
                "^/(.*)$",
                &[(false, "^/(?:api/|_next)")][..],
            ),
            (
                "^(?:/(?<x>(?!a)(?=b)[^/]+?))$",
                "^(?:/(?<x>[^/]+?))$",
                &[(false, "^/(?:a)"), (true, "^/(?:b)")],
            ),
            (
                "^(?!/a\\.b)/(.*|x)$",
                "^/(.*|x)$",
                &[(false, "^(?:/a\\.b)")],
            ),
        ] {
            let found = take_apart(pattern).unwrap();
            let shown: Vec<_> = found
                .guards
                .iter()
                .map(|(wanted, guard)| (*wanted, guard.as_str()))
                .collect();
            assert_eq!(
                (found.base.as_str(), shown.as_slice()),
                (base, guards),
                "{pattern}"
            );
        }
        for pattern in [
            "^/(.*)$",
            "^/a?(?!b).*$",
            "^(?:/((?!a).*))?/?$",
            "^(?:/(?!a).*|/b)$",
            "^/(?!a).*|/b$",
            "^/(?!a)*b$",
            "/(?!a)b",
            "^/[a](?!b).*$",
            "^/(?:(?!a).)*$",
            "^/(?!a",
            "^/((?!a)b))$",
        ] {
            assert_eq!(take_apart(pattern), None, "{pattern}");
        }
    }
}
