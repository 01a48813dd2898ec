//! `_redirects`: one rule a line, in Netlify's syntax.
//!
//! ```text
//! /from  [name=value ...]  [/to]  [status[!]]  [Condition=a,b ...]    # comment
//! ```
//!
//! Pure. A rule that an edge could not execute exactly is refused with its line; the first rule that fits a
//! request decides. A target never leads to another host than the one it is written with.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use super::{RouteError, WrittenLines};

/// Most rules for one path each. What Cloudflare takes; a lookup costs the same for any number.
pub(super) const MAX_EXACT_REDIRECTS: usize = 2000;
/// Most rules with wildcards: each may have to be tried for each request.
pub(super) const MAX_WILD_REDIRECTS: usize = 200;
/// Longest line, in bytes.
pub(super) const MAX_LINE_BYTES: usize = 2000;
/// Most parameters and most conditions of one rule.
const MAX_TERMS: usize = 16;

const FILE: &str = "_redirects";

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// Its line, counted from 1.
    pub line: usize,
    /// Whether that is one of `netlify.toml`.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub beside: bool,
    /// The scheme it is for, if only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// The host it is for, if only one, in lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The paths it is for.
    pub from: Pattern,
    /// Parameters that the query must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<Parameter>,
    /// Where it leads, with `:name` where a wildcard's text belongs.
    pub to: String,
    /// 200 answers with the file at `to`, 404 and 410 answer so with that status; others redirect.
    pub status: u16,
    /// Whether it decides even where there is a file.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub force: bool,
    /// What else must be so; all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A parameter that a query must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its value, or `:name` if any value will do.
    pub value: String,
}

/// What must be so of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// The language it likes best is one of these, in lower case, without a region.
    Language(Vec<String>),
    /// It has one of these cookies.
    Cookie(Vec<String>),
}

impl Redirect {
    /// Whether it sends the client elsewhere, rather than answering with a file.
    #[must_use]
    pub const fn sends_away(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }
}

/// Reads a whole `_redirects`, and `more` lines behind it.
///
/// # Errors
/// Everything that is wrong in it, each with its line.
pub(super) fn parse(text: &str, more: &WrittenLines) -> Result<Vec<Redirect>, Vec<RouteError>> {
    let mut rules = Vec::new();
    let mut errors = Vec::new();
    let (mut exact, mut wild) = (0, 0);
    for (file, number, line) in more.after(FILE, text) {
        let error = |number, problem| error(file, number, problem);
        match rule(number, line) {
            Ok(None) => {}
            Ok(Some(mut rule)) => {
                rule.beside = file != FILE;
                let (count, limit) = match rule.from.exact() {
                    Some(_) => (&mut exact, MAX_EXACT_REDIRECTS),
                    None => (&mut wild, MAX_WILD_REDIRECTS),
                };
                *count += 1;
                if *count == limit + 1 {
                    let kind = rule.from.exact().map_or("with", |_| "without");
                    let problem = format!("more than {limit} rules {kind} wildcards");
                    errors.push(error(number, problem));
                }
                if *count <= limit {
                    rules.push(rule);
                }
            }
            Err(problem) => errors.push(error(number, problem)),
        }
    }
    if errors.is_empty() {
        Ok(rules)
    } else {
        Err(errors)
    }
}

const fn error(file: &'static str, line: usize, problem: String) -> RouteError {
    RouteError {
        file,
        line,
        problem,
    }
}

fn rule(line: usize, text: &str) -> Result<Option<Redirect>, String> {
    if text.len() > MAX_LINE_BYTES {
        return Err(format!("the line is longer than {MAX_LINE_BYTES} bytes"));
    }
    let tokens: Vec<&str> = text
        .split_whitespace()
        .take_while(|token| !token.starts_with('#'))
        .collect();
    let Some((from, rest)) = tokens.split_first() else {
        return Ok(None);
    };
    let (scheme, host, path) = source(from)?;
    let from = Pattern::parse(path).map_err(|error| error.to_string())?;
    if from.stars() > 1
        || from
            .as_str()
            .split('/')
            .any(|part| part != "*" && part.contains('*'))
    {
        return Err("`*` can stand only once in a rule, as a whole part of the path".to_owned());
    }
    let target = rest.iter().position(|token| is_target(token));
    let (before, to, after) = match target {
        Some(at) => (&rest[..at], Some(rest[at]), &rest[at + 1..]),
        None => {
            let at = rest
                .iter()
                .position(|token| !token.contains('='))
                .unwrap_or(rest.len());
            (&rest[..at], None, &rest[at..])
        }
    };
    let query = parameters(before)?;
    let (status, force, conditions) = status_and_conditions(after)?;
    let to = match to {
        Some(to) => to.to_owned(),
        None if status == 200 && target.is_none() && !after.is_empty() => {
            path.replace('*', ":splat")
        }
        None => {
            return Err(
                "where the rule leads is missing: a path that starts with `/`, or a URL".to_owned(),
            );
        }
    };
    let rule = Redirect {
        line,
        beside: false,
        scheme,
        host,
        from,
        query,
        to,
        status,
        force,
        conditions,
    };
    check_target(&rule)?;
    Ok(Some(rule))
}

type Source<'a> = (Option<String>, Option<String>, &'a str);

/// Scheme, host and path that a rule is for.
fn source(from: &str) -> Result<Source<'_>, String> {
    let Some((scheme, rest)) = from.split_once("://") else {
        return Ok((None, None, from));
    };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("`{scheme}://` is neither http nor https"));
    }
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = crate::host::Host::from_authority(host).map_err(|error| error.to_string())?;
    let path = if path.is_empty() { "/" } else { path };
    Ok((Some(scheme.to_owned()), Some(host.to_string()), path))
}

fn is_target(token: &str) -> bool {
    token.starts_with('/') || token.starts_with("http://") || token.starts_with("https://")
}

fn parameters(tokens: &[&str]) -> Result<Vec<Parameter>, String> {
    if tokens.len() > MAX_TERMS {
        return Err(format!("more than {MAX_TERMS} query parameters"));
    }
    let parameter = |token: &&str| match token.split_once('=') {
        Some((name, value)) if !name.is_empty() && value != ":" => Ok(Parameter {
            name: name.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err(format!(
            "`{}` is no query parameter like `name=value` or `name=:value`, nor where the rule leads: that starts with `/` or is a URL",
            shown(token)
        )),
    };
    tokens.iter().map(parameter).collect()
}

fn status_and_conditions(tokens: &[&str]) -> Result<(u16, bool, Vec<Condition>), String> {
    let (status, force, rest) = match tokens.split_first() {
        Some((token, rest)) if !token.contains('=') => {
            let (digits, force) = match token.strip_suffix('!') {
                Some(digits) => (digits, true),
                None => (*token, false),
            };
            (status(digits)?, force, rest)
        }
        _ => (301, false, tokens),
    };
    if rest.len() > MAX_TERMS {
        return Err(format!("more than {MAX_TERMS} conditions"));
    }
    let conditions: Result<_, _> = rest.iter().map(|token| condition(token)).collect();
    Ok((status, force, conditions?))
}

fn status(digits: &str) -> Result<u16, String> {
    match digits.parse() {
        Ok(status @ (200 | 301 | 302 | 303 | 307 | 308 | 404 | 410)) => Ok(status),
        _ => Err(format!(
            "`{}` is none of the statuses 200, 301, 302, 303, 307, 308, 404 and 410",
            shown(digits)
        )),
    }
}

fn condition(token: &str) -> Result<Condition, String> {
    let (name, values) = token
        .split_once('=')
        .ok_or_else(|| format!("`{}` is no condition like `Language=en,de`", shown(token)))?;
    let values = || values.split(',').filter(|value| !value.is_empty());
    let condition = match name.to_ascii_lowercase().as_str() {
        "language" => {
            let language = |value: &str| {
                let primary = value.split(['-', '_']).next().unwrap_or(value);
                primary.to_ascii_lowercase()
            };
            Condition::Language(values().map(language).collect())
        }
        "cookie" => Condition::Cookie(values().map(ToOwned::to_owned).collect()),
        "country" => {
            return Err(
                "`Country` needs to know where a client is, which an edge does not".to_owned(),
            );
        }
        "role" => {
            return Err("`Role` needs signed-in visitors, which an edge does not know".to_owned());
        }
        _ => {
            return Err(format!(
                "`{}` is no condition: there are `Language` and `Cookie`",
                shown(name)
            ));
        }
    };
    match &condition {
        Condition::Language(values) | Condition::Cookie(values) if values.is_empty() => {
            Err(format!("`{}` names no value", shown(token)))
        }
        Condition::Language(_) | Condition::Cookie(_) => Ok(condition),
    }
}

fn check_target(rule: &Redirect) -> Result<(), String> {
    let to = rule.to.as_str();
    if to
        .bytes()
        .any(|byte| !(0x21..0x7f).contains(&byte) || byte == b'\\')
    {
        return Err(
            "where the rule leads holds a backslash, or what is not ASCII and must be escaped"
                .to_owned(),
        );
    }
    let path = if let Some((_, rest)) = to.split_once("://").filter(|_| !to.starts_with('/')) {
        if !rule.sends_away() {
            return Err(
                "an answer from another server needs an upstream: name it in helix.toml, under `[upstreams.<name>]` and `[[forward]]`"
                    .to_owned(),
            );
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.is_empty()
            || authority.contains('@')
            || placeholders(authority).next().is_some()
        {
            return Err("the host of where the rule leads must be written out".to_owned());
        }
        path
    } else {
        if to.starts_with("//") {
            return Err(
                "where the rule leads starts with `//`, which means another host: write its URL"
                    .to_owned(),
            );
        }
        if !rule.sends_away() && to.contains(['?', '#']) {
            return Err("a file has no query and no fragment".to_owned());
        }
        to
    };
    let captured = rule
        .query
        .iter()
        .filter_map(|parameter| parameter.value.strip_prefix(':'));
    let known: Vec<&str> = rule.from.names().chain(captured).collect();
    if let Some(name) = placeholders(path).find(|name| !known.contains(name)) {
        return Err(format!(
            "`:{}` stands for nothing in `{}`",
            shown(name),
            rule.from.as_str()
        ));
    }
    leads_elsewhere(rule)
}

/// A client that is sent where it is would come again.
fn leads_elsewhere(rule: &Redirect) -> Result<(), String> {
    let trimmed = |path: &str| path.trim_end_matches('/').to_owned();
    let same = rule.sends_away()
        && rule.host.is_none()
        && rule.query.is_empty()
        && rule.conditions.is_empty()
        && trimmed(&rule.to) == trimmed(&rule.from.as_str().replace('*', ":splat"));
    if same {
        Err(
            "the rule leads to where it comes from (a slash at the end makes no difference)"
                .to_owned(),
        )
    } else {
        Ok(())
    }
}

/// The names after a colon at the start of a part or value.
pub(super) fn placeholders(template: &str) -> impl Iterator<Item = &str> {
    let starts = template.match_indices(':').map(|(at, _)| at);
    starts
        .filter(|at| {
            template[..*at].ends_with(['/', '=', '-', '.', '#', '_', '&', '?', ',']) || *at == 0
        })
        .filter_map(|at| {
            let name = &template[at + 1..];
            let end = name
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(name.len());
            (end > 0 && !name.as_bytes()[0].is_ascii_digit()).then(|| &name[..end])
        })
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
#[path = "redirect_tests.rs"]
mod tests;
