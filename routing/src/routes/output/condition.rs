//! What routes ask of a request beside its path: `has` and `missing`.
//!
//! Pure. Every question is noted, so that caches and the edge's own memory know on what an answer depended.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::decide::{Client, pairs};
use super::matcher::{Matcher, Overrun};
use super::{Condition, Subject, Test};

/// A condition whose patterns can be run.
#[derive(Debug)]
pub(super) struct ReadyCondition {
    of: Subject,
    tests: Vec<ReadyTest>,
}

#[derive(Debug)]
enum ReadyTest {
    Plain(Test),
    Fits(Matcher),
}

/// What was asked of a request.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Whether of its cookies.
    pub(super) cookies: bool,
    /// Of which fields.
    pub(super) fields: Vec<String>,
}

impl ReadyCondition {
    /// # Errors
    /// What is wrong with a pattern.
    pub(super) fn new(condition: &Condition) -> Result<Self, String> {
        let ready = |test: &Test| {
            Ok(match test {
                Test::Fits(pattern) => ReadyTest::Fits(Matcher::new(pattern, true)?),
                Test::Is(_)
                | Test::IsNot(_)
                | Test::In(_)
                | Test::NotIn(_)
                | Test::Prefix(_)
                | Test::Suffix(_)
                | Test::Above(_)
                | Test::AtLeast(_)
                | Test::Below(_)
                | Test::AtMost(_) => ReadyTest::Plain(test.clone()),
            })
        };
        Ok(Self {
            of: condition.of.clone(),
            tests: condition
                .tests
                .iter()
                .map(ready)
                .collect::<Result<_, String>>()?,
        })
    }

    /// The names that its patterns find something for.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let patterns = self.tests.iter().filter_map(|test| match test {
            ReadyTest::Fits(matcher) => Some(matcher),
            ReadyTest::Plain(_) => None,
        });
        patterns.flat_map(|matcher| matcher.names().iter().flatten().map(|name| &**name))
    }

    /// Whether it is asked of the host.
    pub(super) fn is_of_host(&self) -> bool {
        self.of == Subject::Host
    }

    /// Whether the request has it; what its patterns found by name is added to `named`.
    pub(super) fn holds(
        &self,
        query: Option<&str>,
        client: &impl Client,
        asked: &mut Asked,
        named: &mut Vec<(String, String)>,
    ) -> Result<bool, Overrun> {
        let Some(value) = value(&self.of, query, client, asked) else {
            return Ok(false);
        };
        for test in &self.tests {
            let holds = match test {
                ReadyTest::Plain(test) => is_true(test, &value),
                ReadyTest::Fits(matcher) => fits(matcher, &value, named)?,
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn value<'a>(
    of: &Subject,
    query: Option<&'a str>,
    client: &'a impl Client,
    asked: &mut Asked,
) -> Option<Cow<'a, str>> {
    match of {
        Subject::Host => Some(client.host()),
        Subject::Header(name) => {
            if !asked.fields.contains(name) {
                asked.fields.push(name.clone());
            }
            client.header(name)
        }
        Subject::Cookie(name) => {
            asked.cookies = true;
            client.cookie(name)
        }
        Subject::Query(name) => {
            let mut pairs = pairs(query).map(|(name, value)| (unescaped(name), unescaped(value)));
            pairs
                .find(|(known, _)| known == name)
                .map(|(_, value)| Cow::Owned(value))
        }
    }
}

/// A part of a query as it was meant (WHATWG URL, `application/x-www-form-urlencoded`).
pub(super) fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail
            .get(..2)
            .and_then(|digits| core::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn fits(
    matcher: &Matcher,
    value: &str,
    named: &mut Vec<(String, String)>,
) -> Result<bool, Overrun> {
    let Some(groups) = matcher.groups(value)? else {
        return Ok(false);
    };
    for (name, range) in matcher.names().iter().zip(groups) {
        if let (Some(name), Some(range)) = (name, range) {
            let text = value.get(range).unwrap_or_default();
            named.push((name.to_string(), text.to_owned()));
        }
    }
    Ok(true)
}

fn is_true(test: &Test, value: &str) -> bool {
    let number = || value.trim().parse::<i64>().ok();
    match test {
        Test::Is(wanted) => value == wanted,
        Test::IsNot(other) => value != other,
        Test::In(all) => all.iter().any(|one| one == value),
        Test::NotIn(all) => !all.iter().any(|one| one == value),
        Test::Prefix(start) => value.starts_with(start.as_str()),
        Test::Suffix(end) => value.ends_with(end.as_str()),
        Test::Above(bound) => number().is_some_and(|number| number > *bound),
        Test::AtLeast(bound) => number().is_some_and(|number| number >= *bound),
        Test::Below(bound) => number().is_some_and(|number| number < *bound),
        Test::AtMost(bound) => number().is_some_and(|number| number <= *bound),
        // Patterns are compiled, and never come here.
        Test::Fits(_) => false,
    }
}
