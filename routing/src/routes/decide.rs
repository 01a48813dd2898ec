//! What a release does with a request: which file, which redirect, or which upstream.
//!
//! ```text
//! forced redirects → forwards → files → redirects → what there is instead of nothing
//! ```
//!
//! In a Build Output release, its own routes stand in the place of what comes after forwards: [`output`](super::output).
//!
//! Pure, and the same for every edge and for `helix explain`. No answer leads to a host that a rule does not
//! name, and no path that asks for a hashed file is ever answered with a page.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use super::Routes;
use super::headers::is_single;
use super::html::{Files, Found, HtmlHandling, NotFoundHandling, find, nearest_not_found_page};
use super::kind::{is_asset, is_immutable};
use super::output::{self, Arranged, Given};
use super::path::{Decoded, decode, encode};
use super::pattern::{Captures, Case, Index};
use super::redirect::{Condition, Redirect};

/// What rules may depend on, beyond the path. Asked only when a rule does.
pub trait Client {
    /// The host asked for, without a port.
    fn host(&self) -> Cow<'_, str>;
    /// Whether it came over TLS.
    fn is_secure(&self) -> bool;
    /// `Accept-Language`.
    fn accept_language(&self) -> Option<&str>;
    /// Whether it sent a cookie of this name.
    fn has_cookie(&self, name: &str) -> bool;
    /// Whether it takes a page.
    fn accepts_html(&self) -> bool;
    /// The method it asks with.
    fn method(&self) -> &str;
    /// The first value of a field, whose name is in lower case.
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;
    /// The value of a cookie.
    fn cookie(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// A request's target.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its path, as sent.
    pub raw: &'a str,
    /// Its path, decoded.
    pub path: &'a Decoded<'a>,
    /// Its query, without the question mark.
    pub query: Option<&'a str>,
}

/// What a request gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<F> {
    /// This file, with 200, or with 404 or 410 when it only says that there is nothing.
    File {
        /// The file.
        file: F,
        /// Its status.
        status: u16,
    },
    /// The client is sent elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// `Location`.
        location: String,
    },
    /// It is sent on: the number of the forward.
    Forward(usize),
    /// There is nothing, and no page that says so: 404 or 410.
    Nothing {
        /// The status.
        status: u16,
    },
}

/// What a request gets, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided<F> {
    /// What it gets.
    pub decision: Decision<F>,
    /// The line of a file that says so, if one does.
    pub line: Option<usize>,
    /// The file, where there is a line.
    pub file: &'static str,
    /// Whether another `Accept-Language` could have got another answer.
    pub by_language: bool,
    /// Whether other cookies could have.
    pub by_cookie: bool,
    /// Whether there is no file of this name, and this is what there is instead.
    pub instead: bool,
    /// Why, in a few words.
    pub reason: &'static str,
    /// What routes of a Build Output release gave it.
    pub given: Option<Box<Given>>,
}

impl<F> Decided<F> {
    /// This decision, by nothing but the path.
    pub(super) const fn of(decision: Decision<F>, reason: &'static str) -> Self {
        Self {
            decision,
            line: None,
            file: "",
            by_language: false,
            by_cookie: false,
            instead: false,
            reason,
            given: None,
        }
    }
}

/// The rules of a release, arranged for looking them up.
#[derive(Debug)]
pub struct Rules {
    /// All of `_redirects`, if any of them decides even where there is a file.
    forcing: Index,
    /// Those that only decide where there is none.
    others: Index,
    headers: Index,
    /// The routes of a Build Output release.
    output: Option<Box<Arranged>>,
}

impl Rules {
    /// Arranges the rules of `routes`.
    #[must_use]
    pub fn new(routes: &Routes) -> Self {
        let redirects = |wanted: fn(&Redirect) -> bool| {
            let rules = routes.redirects.iter().enumerate();
            let rules = rules.filter(move |(_, rule)| wanted(rule));
            Index::new(Case::Sensitive, rules.map(|(at, rule)| (at, &rule.from)))
        };
        let any_forces = routes.redirects.iter().any(|rule| rule.force);
        let headers = routes.headers.iter().enumerate();
        Self {
            forcing: redirects(if any_forces { |_| true } else { |_| false }),
            others: redirects(|rule| !rule.force),
            headers: Index::new(
                Case::Insensitive,
                headers.map(|(at, rule)| (at, &rule.path)),
            ),
            output: routes
                .output
                .as_ref()
                .map(|output| Box::new(Arranged::new(output))),
        }
    }

    /// Whether no path has fields of its own.
    #[must_use]
    pub fn has_no_headers(&self) -> bool {
        self.headers.is_empty()
    }

    /// The numbers of the blocks of `_headers` that are for `path`, decoded, in order.
    pub fn headers<'a>(
        &'a self,
        routes: &'a Routes,
        path: &'a str,
    ) -> impl Iterator<Item = usize> + 'a {
        self.headers.candidates(path).filter(move |at| {
            let rule = routes.headers.get(*at);
            rule.is_some_and(|rule| rule.path.captures(path, Case::Insensitive).is_some())
        })
    }

    /// What a request for `target` gets among `files`.
    pub fn decide<S: Files>(
        &self,
        routes: &Routes,
        files: &S,
        target: Target<'_>,
        client: &impl Client,
    ) -> Decided<S::File> {
        let mut decided = Decided::of(Decision::Nothing { status: 404 }, "no such file");
        let pass = Pass::BeforeFiles;
        if !self.forcing.is_empty()
            && redirected(
                (&self.forcing, pass),
                routes,
                files,
                target,
                client,
                &mut decided,
            )
        {
            return decided;
        }
        if let Some(forward) = routes.forward_for(target.raw) {
            decided.decision = Decision::Forward(forward);
            decided.reason = "sent on to an upstream";
            return decided;
        }
        if let (Some(output), Some(arranged)) = (&routes.output, &self.output) {
            return output::decide(routes, (output, arranged), files, target, client);
        }
        if let Some((decision, reason)) = by_file(routes, files, target) {
            decided.decision = decision;
            decided.reason = reason;
            return decided;
        }
        decided.instead = true;
        let pass = Pass::AfterFiles;
        if !self.others.is_empty()
            && redirected(
                (&self.others, pass),
                routes,
                files,
                target,
                client,
                &mut decided,
            )
        {
            return decided;
        }
        let (decision, reason) = instead_of_nothing(routes, files, &target.path.path, client);
        decided.decision = decision;
        decided.reason = reason;
        decided
    }
}

type Outcome<F> = (Decision<F>, &'static str);

fn by_file<S: Files>(routes: &Routes, files: &S, target: Target<'_>) -> Option<Outcome<S::File>> {
    let path = &*target.path.path;
    Some(match find(files, routes.html_handling, path)? {
        Found::File(file) if target.path.canonical => {
            (Decision::File { file, status: 200 }, "file")
        }
        Found::File(_) => (
            moved(path, target.query),
            "file, under its path as it is properly escaped",
        ),
        Found::Redirect { path, .. } => {
            (moved(&path, target.query), "page, under its canonical path")
        }
    })
}

/// To another path of this host. `path` has no slash at its start, so this never names a host.
pub(super) fn moved<F>(path: &str, query: Option<&str>) -> Decision<F> {
    let mut location = format!("/{}", encode(path));
    append_query(&mut location, query);
    Decision::Redirect {
        status: 307,
        location,
    }
}

fn instead_of_nothing<S: Files>(
    routes: &Routes,
    files: &S,
    path: &str,
    client: &impl Client,
) -> Outcome<S::File> {
    let nothing = (Decision::Nothing { status: 404 }, "no such file");
    match routes.not_found_handling {
        NotFoundHandling::None => nothing,
        NotFoundHandling::Page => match nearest_not_found_page(files, path) {
            Some(file) => (
                Decision::File { file, status: 404 },
                "no such file; the nearest 404.html says so",
            ),
            None => nothing,
        },
        NotFoundHandling::SinglePageApplication => match files.file("index.html") {
            Some(file) if !is_asset(path) && !is_immutable(path) && client.accepts_html() => (
                Decision::File { file, status: 200 },
                "no such file; the application's page routes by itself",
            ),
            Some(_) | None => nothing,
        },
    }
}

/// When rules are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// The first rule that fits decides if it is forced. If it is not, those below it are not asked.
    BeforeFiles,
    /// The first rule that fits decides.
    AfterFiles,
}

/// Whether a rule decides; then `decided` says how. Also notes what its conditions asked about.
fn redirected<S: Files>(
    (index, pass): (&Index, Pass),
    routes: &Routes,
    files: &S,
    target: Target<'_>,
    client: &impl Client,
    decided: &mut Decided<S::File>,
) -> bool {
    for at in index.candidates(&target.path.path) {
        let Some(rule) = routes.redirects.get(at) else {
            continue;
        };
        let Some(mut captures) = rule.from.captures(&target.path.path, Case::Sensitive) else {
            continue;
        };
        if !is_for_host(rule, client) || !has_parameters(rule, target.query, &mut captures) {
            continue;
        }
        if !conditions_hold(rule, client, decided) {
            continue;
        }
        if let Some(decision) = follow(rule, &captures, routes, files, target) {
            if pass == Pass::BeforeFiles && !rule.force {
                return false;
            }
            decided.decision = decision;
            decided.line = Some(rule.line);
            decided.reason = if rule.beside {
                "a rule of netlify.toml"
            } else {
                "a rule of _redirects"
            };
            decided.file = if rule.beside {
                "netlify.toml"
            } else {
                "_redirects"
            };
            return true;
        }
    }
    false
}

fn is_for_host(rule: &Redirect, client: &impl Client) -> bool {
    let scheme = if client.is_secure() { "https" } else { "http" };
    rule.scheme.as_deref().is_none_or(|wanted| wanted == scheme)
        && rule
            .host
            .as_deref()
            .is_none_or(|host| client.host().eq_ignore_ascii_case(host))
}

fn has_parameters<'a>(
    rule: &'a Redirect,
    query: Option<&'a str>,
    captures: &mut Captures<'a>,
) -> bool {
    rule.query.iter().all(|wanted| {
        let mut pairs = pairs(query);
        match wanted.value.strip_prefix(':') {
            None => pairs.any(|(name, value)| name == wanted.name && value == wanted.value),
            Some(capture) => match pairs.find(|(name, _)| *name == wanted.name) {
                Some((_, value)) => {
                    captures.push((capture, value));
                    true
                }
                None => false,
            },
        }
    })
}

pub(super) fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn conditions_hold<F>(rule: &Redirect, client: &impl Client, decided: &mut Decided<F>) -> bool {
    rule.conditions.iter().all(|condition| match condition {
        Condition::Language(wanted) => {
            decided.by_language = true;
            let liked = client.accept_language().and_then(best_language);
            liked.is_some_and(|liked| wanted.iter().any(|one| one.eq_ignore_ascii_case(liked)))
        }
        Condition::Cookie(names) => {
            decided.by_cookie = true;
            names.iter().any(|name| client.has_cookie(name))
        }
    })
}

/// The language a client likes best, without its region. The first of those it likes alike.
fn best_language(accepted: &str) -> Option<&str> {
    let mut best: Option<(&str, u32)> = None;
    for range in accepted.split(',').take(32) {
        let mut parts = range.split(';').map(str::trim);
        let language = parts
            .next()
            .and_then(|tag| tag.split('-').next())
            .unwrap_or_default();
        let quality = parts
            .find_map(|part| part.strip_prefix("q="))
            .map_or(1000, thousandths);
        if !language.is_empty() && quality > best.map_or(0, |(_, quality)| quality) {
            best = Some((language, quality));
        }
    }
    best.map(|(language, _)| language)
}

/// A `qvalue` (RFC 9110 12.4.2) times a thousand; 0 for anything else.
pub(super) fn thousandths(text: &str) -> u32 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || !digits(fraction) {
        return 0;
    }
    let fraction = format!("{fraction:0<3}").parse().unwrap_or(0);
    (u32::from(whole == "1") * 1000 + fraction).min(1000)
}

/// What a rule that is for a request gives it; none when it leads nowhere.
fn follow<S: Files>(
    rule: &Redirect,
    captures: &Captures<'_>,
    routes: &Routes,
    files: &S,
    target: Target<'_>,
) -> Option<Decision<S::File>> {
    let mut to = expand(&rule.to, captures);
    if !rule.sends_away() {
        return Some(rewrite(rule.status, &to, routes, files, target));
    }
    // Neither names another host: what a wildcard stood for may hold slashes of its own.
    while to.starts_with("//") {
        to.remove(0);
    }
    if !to.contains('?') {
        let (mut path, fragment) = match to.split_once('#') {
            Some((path, fragment)) => (String::from(path), Some(String::from(fragment))),
            None => (to, None),
        };
        let used = |name: &str| rule.query.iter().any(|parameter| parameter.name == name);
        for (name, value) in pairs(target.query).filter(|(name, _)| !used(name)) {
            if name.is_empty() && value.is_empty() {
                continue;
            }
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(name);
            if !value.is_empty() {
                path.push('=');
                path.push_str(value);
            }
        }
        if let Some(fragment) = fragment {
            path.push('#');
            path.push_str(&fragment);
        }
        to = path;
    }
    let mut here = String::from(target.raw);
    append_query(&mut here, target.query);
    // A client that is sent where it is would come again and again.
    (here != to).then_some(Decision::Redirect {
        status: rule.status,
        location: to,
    })
}

fn rewrite<S: Files>(
    status: u16,
    to: &str,
    routes: &Routes,
    files: &S,
    target: Target<'_>,
) -> Decision<S::File> {
    let nothing = Decision::Nothing {
        status: if status == 200 { 404 } else { status },
    };
    let Ok(Some(decoded)) = decode(to) else {
        return nothing;
    };
    let exact = || files.file(&decoded.path);
    let page = || find(files, routes.html_handling, &decoded.path).map(Found::into_file);
    let by_itself =
        || find(files, HtmlHandling::AutoTrailingSlash, &decoded.path).map(Found::into_file);
    match exact().or_else(page).or_else(by_itself) {
        // A page in the place of a script breaks whoever asked for it, and is kept for ever.
        Some(_) if status == 200 && is_immutable(&target.path.path) => nothing,
        Some(file) => Decision::File { file, status },
        None => nothing,
    }
}

fn append_query(location: &mut String, query: Option<&str>) {
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
}

/// `template` with the text of each wildcard in its place, escaped so that it stays there.
fn expand(template: &str, captures: &Captures<'_>) -> String {
    let mut expanded = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some(at) = rest.find(':') {
        let (before, after) = rest.split_at(at);
        expanded.push_str(before);
        let name =
            super::redirect::placeholders(rest).find(|name| name.as_ptr() == after[1..].as_ptr());
        let captured = name.and_then(|name| captures.iter().find(|(other, _)| *other == name));
        match captured {
            Some((name, text)) => {
                // A splat is a path of several parts; everything else stays within its part.
                escape(
                    text,
                    *name == "splat" && !expanded.contains('?'),
                    &mut expanded,
                );
                rest = &after[1 + name.len()..];
            }
            None => {
                expanded.push(':');
                rest = &after[1..];
            }
        }
    }
    expanded.push_str(rest);
    expanded
}

fn escape(text: &str, with_slashes: bool, out: &mut String) {
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'@' | b':' | b',' | b'+')
            || (byte == b'/' && with_slashes)
            // What was captured from a query is escaped already.
            || byte == b'%';
        if plain {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes everything");
        }
    }
}

/// Puts `fields` into `all`, as `_headers` has it: a field with one value replaces, others are joined.
pub fn merge<N: AsRef<str>, V>(
    all: &mut Vec<(N, V)>,
    name: N,
    value: V,
    join: impl FnOnce(&V, &V) -> V,
) {
    match all
        .iter_mut()
        .find(|(other, _)| other.as_ref() == name.as_ref())
    {
        None => all.push((name, value)),
        Some((other, held)) if is_single(other.as_ref()) => *held = value,
        Some((_, held)) => *held = join(held, &value),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
