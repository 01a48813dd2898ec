//! A request on its way through the phases.
//!
//! Pure. `null`, then files; then `filesystem`, `rewrite` and `resource`, each followed by another look where it led to
//! another path; `miss` after each look that found nothing, `hit` after the one that found something, `error` for what has
//! a status of 400 and more. Routes of `hit` and `miss` never change a field that was there before them.

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::Routes;
use super::super::decide::{Client, Decided, Decision, Target, moved, pairs};
use super::super::html::Files;
use super::super::path::{decode, encode};
use super::accepted::languages;
use super::arranged::{Arranged, Ready, ReadyDestination, ReadyStep};
use super::condition::Asked;
use super::matcher::{Groups, Overrun};
use super::template::{Found, Into, Template};
use super::transform::{Change, apply};
use super::{Given, Output, Phase, Then};

/// Most times that a request enters a phase: routes that lead to one another end here, with 500.
const MAX_ENTRIES: u32 = 50;

/// How a request's way ended.
enum End<F> {
    File(F),
    Function,
    Redirect(u16, String),
    Forward(usize, String),
    Status(u16),
    Loop,
    Overrun,
}

/// What happens after a route.
enum Flow<F> {
    Next,
    /// The next route, with another path.
    Moved,
    Stop,
    End(End<F>),
}

struct Run<'a, S: Files, C: Client> {
    output: &'a Output,
    arranged: &'a Arranged,
    files: &'a S,
    client: &'a C,
    target: Target<'a>,
    /// As a URL has it.
    path: Cow<'a, str>,
    query: Option<Cow<'a, str>>,
    status: Option<u16>,
    fields: Vec<(String, String)>,
    changes: Vec<Change<'a>>,
    asked: Asked,
    by_language: bool,
    entries: u32,
    line: Option<usize>,
    /// The last thing that a route of `miss` said.
    missed: Option<u16>,
}

/// What a request for `target` gets by the routes of `output`.
pub(in super::super) fn decide<S: Files>(
    routes: &Routes,
    (output, arranged): (&Output, &Arranged),
    files: &S,
    target: Target<'_>,
    client: &impl Client,
) -> Decided<S::File> {
    let path = if target.path.canonical {
        Cow::Borrowed(target.raw)
    } else {
        Cow::Owned(format!("/{}", encode(&target.path.path)))
    };
    let mut run = Run {
        output,
        arranged,
        files,
        client,
        target,
        path,
        query: target.query.map(Cow::Borrowed),
        status: None,
        fields: Vec::new(),
        changes: Vec::new(),
        asked: Asked::default(),
        by_language: false,
        entries: 0,
        line: None,
        missed: None,
    };
    if !target.path.canonical && run.look(&run.path).is_some() {
        let decision = moved(&target.path.path, target.query);
        return Decided::of(decision, "file, under its path as it is properly escaped");
    }
    let end = run.all();
    run.finish(end, routes)
}

impl<'a, S: Files, C: Client> Run<'a, S, C> {
    fn all(&mut self) -> End<S::File> {
        for phase in [
            Phase::Null,
            Phase::Filesystem,
            Phase::Rewrite,
            Phase::Resource,
        ] {
            self.status = None;
            let before = self.path.clone();
            if let Some(end) = self.phase(phase) {
                return end;
            }
            let looks = phase == Phase::Null || before != self.path;
            if looks && let Some(found) = self.look(&self.path) {
                return found;
            }
            if let Some(status) = self.status {
                return End::Status(status);
            }
            if looks && let Some(end) = self.miss() {
                return end;
            }
        }
        End::Status(self.missed.unwrap_or(404))
    }

    /// After a look that found nothing.
    fn miss(&mut self) -> Option<End<S::File>> {
        let before = self.path.clone();
        if let Some(end) = self.phase(Phase::Miss) {
            return Some(end);
        }
        self.missed = self.status.take().or(self.missed);
        let found = (before != self.path).then(|| self.look(&self.path));
        found.flatten()
    }

    /// The file or function at `path`.
    fn look(&self, path: &str) -> Option<End<S::File>> {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let decoded = decode(path).ok()??;
        let key = decoded.path.trim_end_matches('/');
        let at = |name: &str| {
            let file = self.files.file(name).map(End::File);
            file.or_else(|| {
                self.output
                    .functions
                    .contains_key(name)
                    .then_some(End::Function)
            })
        };
        if !key.is_empty()
            && let Some(found) = at(key)
        {
            return Some(found);
        }
        let mut name = String::with_capacity(key.len() + "/index.html".len());
        name.push_str(key);
        if !key.is_empty() {
            name.push('/');
        }
        name.push_str("index.html");
        if let Some(found) = at(&name) {
            return Some(found);
        }
        name.truncate(name.len() - ".html".len());
        at(&name)
    }

    /// Asks the routes of a phase; none when it came to its end.
    fn phase(&mut self, phase: Phase) -> Option<End<S::File>> {
        let index = self.arranged.phase(phase);
        if index.is_empty() {
            return None;
        }
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Some(End::Loop);
        }
        let held = self.fields.len();
        let mut candidates = Vec::new();
        index.candidates(
            &self.path.to_ascii_lowercase().into_bytes(),
            &mut candidates,
        );
        let mut at = 0;
        while let Some(number) = candidates.get(at).copied() {
            at += 1;
            match self.route(phase, number, held) {
                Flow::Next => {}
                Flow::Moved => {
                    index.candidates(
                        &self.path.to_ascii_lowercase().into_bytes(),
                        &mut candidates,
                    );
                    at = candidates.partition_point(|other| *other <= number);
                }
                Flow::Stop => return None,
                Flow::End(end) => return Some(end),
            }
        }
        None
    }

    fn route(&mut self, phase: Phase, number: usize, held: usize) -> Flow<S::File> {
        let Some(route) = self.arranged.routes.get(number) else {
            return Flow::Next;
        };
        let mut named = Vec::new();
        let groups = match self.fits(route, phase, &mut named) {
            Ok(Some(groups)) => groups,
            Ok(None) => return Flow::Next,
            Err(Overrun) => return Flow::End(End::Overrun),
        };
        self.line = Some(route.line);
        let path = self.path.clone();
        let host = if self.arranged.has_wildcards() {
            self.client.host()
        } else {
            Cow::Borrowed("")
        };
        let found = Found {
            path: &path,
            groups: &groups,
            named: &named,
            wildcard: self.arranged.wildcard(&host),
        };
        for step in &route.steps {
            if let Some(end) = self.step(step, phase, found, held) {
                return Flow::End(end);
            }
        }
        match &route.to {
            None => {
                self.status = route.status.or(self.status);
                self.lead(route, phase, None)
            }
            Some(ReadyDestination::Path(template)) => {
                self.status = route.status.or(self.status);
                let to = template.expand(found, Into::Url);
                self.lead(route, phase, Some(to))
            }
            Some(ReadyDestination::Away(template)) => {
                let location = self.location(template, found);
                match location {
                    // A client that is sent where it is would come again and again.
                    Some(location) => {
                        Flow::End(End::Redirect(route.status.unwrap_or(307), location))
                    }
                    None => Flow::Next,
                }
            }
            Some(ReadyDestination::Forward(to, template)) => {
                let target = template.expand(found, Into::Url);
                Flow::End(End::Forward(*to, with_query(target, self.query.as_deref())))
            }
        }
    }

    /// What its groups found, if it is for this request.
    fn fits(
        &mut self,
        route: &'a Ready,
        phase: Phase,
        named: &mut Vec<(String, String)>,
    ) -> Result<Option<Groups>, Overrun> {
        let matcher = route.matcher.as_ref().ok_or(Overrun)?;
        if phase == Phase::Error && route.status.is_some() && route.status != self.status {
            return Ok(None);
        }
        let method = self.client.method();
        if !route.methods.is_empty() && !route.methods.iter().any(|one| one == method) {
            return Ok(None);
        }
        let groups = if route.uses_groups {
            matcher.groups(&self.path)?
        } else {
            matcher.fits(&self.path)?.then(Vec::new)
        };
        if groups.is_none() {
            return Ok(None);
        }
        let query = self.query.as_deref();
        for condition in &route.has {
            if !condition.holds(query, self.client, &mut self.asked, named)? {
                return Ok(None);
            }
        }
        for condition in &route.missing {
            let mut nothing = Vec::new();
            if condition.holds(query, self.client, &mut self.asked, &mut nothing)? {
                return Ok(None);
            }
        }
        Ok(groups)
    }

    fn step(
        &mut self,
        step: &'a ReadyStep,
        phase: Phase,
        found: Found<'_>,
        held: usize,
    ) -> Option<End<S::File>> {
        match step {
            ReadyStep::Reset => {
                self.fields.clear();
                self.changes.clear();
                self.status = None;
                None
            }
            ReadyStep::Locale { redirect, cookie } => {
                self.by_language = true;
                self.asked.cookies |= cookie.is_some();
                let cookie = cookie.as_deref().and_then(|name| self.client.cookie(name));
                let fields = self.client.accept_language().unwrap_or_default();
                let mut liked = languages(cookie.as_deref().unwrap_or_default());
                liked.extend(languages(fields));
                let to = liked
                    .iter()
                    .find_map(|tag| redirect.get(&tag.to_ascii_lowercase()))?;
                (*to != self.path)
                    .then(|| End::Redirect(307, with_query(to.clone(), self.target.query)))
            }
            ReadyStep::Field(name, value) => {
                let value = value.expand(found, Into::Field);
                match self.fields.iter().position(|(known, _)| known == name) {
                    None => self.fields.push((name.clone(), value)),
                    Some(at) if at < held && matches!(phase, Phase::Hit | Phase::Miss) => {}
                    Some(at) => self.fields[at].1 = value,
                }
                None
            }
            ReadyStep::Transform(operation, key, values) => {
                let expand = |value: &Template| value.expand(found, Into::Field);
                self.changes.push(Change {
                    operation: *operation,
                    key,
                    values: values.iter().map(expand).collect(),
                });
                None
            }
        }
    }

    /// Goes on where a route leads, or stays.
    fn lead(&mut self, route: &Ready, phase: Phase, to: Option<String>) -> Flow<S::File> {
        let moves = to.is_some();
        let before = self.path.clone();
        match route.then {
            Then::Continue => {
                self.go(to);
                if moves { Flow::Moved } else { Flow::Next }
            }
            Then::Check if !matches!(phase, Phase::Hit | Phase::Error) => {
                self.go(to);
                if let Some(found) = self.look(&self.path) {
                    return Flow::End(found);
                }
                if let Some(status) = route.status.filter(|_| phase != Phase::Miss) {
                    return Flow::End(End::Status(status));
                }
                let other = before != self.path;
                let nested = [
                    (Phase::Miss, phase != Phase::Miss || other),
                    (Phase::Rewrite, phase != Phase::Rewrite || other),
                ];
                for (nested, _) in nested.into_iter().filter(|(_, wanted)| *wanted) {
                    if let Some(end) = self.nested(nested) {
                        return Flow::End(end);
                    }
                }
                if moves { Flow::Moved } else { Flow::Next }
            }
            Then::Check | Then::Stop => {
                self.go(to);
                Flow::Stop
            }
        }
    }

    /// Another phase, from within one.
    fn nested(&mut self, phase: Phase) -> Option<End<S::File>> {
        if phase == Phase::Miss {
            let status = self.status;
            let end = self.miss();
            self.status = self.status.or(status);
            return end;
        }
        let before = self.path.clone();
        if let Some(end) = self.phase(phase) {
            return Some(end);
        }
        let found = (before != self.path).then(|| self.look(&self.path));
        found.flatten()
    }

    fn go(&mut self, to: Option<String>) {
        let Some(mut to) = to else { return };
        if let Some(at) = to.find('?') {
            let query = to.split_off(at);
            self.query = Some(Cow::Owned(merged(&query[1..], self.query.as_deref())));
        }
        if let Some(at) = to.find('#') {
            to.truncate(at);
        }
        while to.starts_with("//") {
            to.remove(0);
        }
        if !to.starts_with('/') {
            to.insert(0, '/');
        }
        self.path = Cow::Owned(to);
    }

    /// Where a client is sent; none if that is where it is.
    fn location(&self, template: &Template, found: Found<'_>) -> Option<String> {
        let mut to = template.expand(found, Into::Url);
        // Neither names another host: what was found may hold slashes of its own.
        while to.starts_with("//") {
            to.remove(0);
        }
        let to = with_query(to, self.target.query);
        let mut here = self.target.raw.to_owned();
        if let Some(query) = self.target.query {
            here.push('?');
            here.push_str(query);
        }
        (here != to).then_some(to)
    }

    fn finish(mut self, end: End<S::File>, routes: &Routes) -> Decided<S::File> {
        let (decision, reason, instead) = match end {
            End::File(file) => {
                let status = self.status.unwrap_or(200);
                self.hit();
                (
                    Decision::File { file, status },
                    "file, by the routes of the output",
                    false,
                )
            }
            End::Redirect(status, location) => (
                Decision::Redirect { status, location },
                "a route of the output",
                false,
            ),
            End::Forward(at, target) => {
                let at = routes.forwards.len() + at;
                return self.decided(
                    Decision::Forward(at),
                    "sent on by a route of the output",
                    Some(target),
                );
            }
            End::Status(status) if status < 400 => {
                (Decision::Nothing { status }, "a route of the output", false)
            }
            End::Status(status) => self.failed(status, "no such file, or a route says so"),
            End::Function => {
                self.failed(404, "a function, which this release was deployed without")
            }
            End::Loop => self.failed(500, "routes of the output lead to one another without end"),
            End::Overrun => {
                let nothing = Decision::Nothing { status: 500 };
                (
                    nothing,
                    "a route's pattern needs more steps than a request may take",
                    false,
                )
            }
        };
        let mut decided = self.decided(decision, reason, None);
        decided.instead = instead;
        decided
    }

    fn hit(&mut self) {
        let (status, path) = (self.status, self.path.clone());
        // It cannot end in anything: its routes add fields and go on.
        let _ = self.phase(Phase::Hit);
        (self.status, self.path) = (status, path);
    }

    /// What a status of 400 and more shows, by the routes of `error`.
    fn failed(
        &mut self,
        status: u16,
        reason: &'static str,
    ) -> (Decision<S::File>, &'static str, bool) {
        let instead = status == 404;
        self.entries = 0;
        self.status = Some(status);
        let here = if self.target.path.canonical {
            Cow::Borrowed(self.target.raw)
        } else {
            Cow::Owned(format!("/{}", encode(&self.target.path.path)))
        };
        self.path = here.clone();
        let nothing = (Decision::Nothing { status }, reason, instead);
        match self.phase(Phase::Error) {
            Some(End::Redirect(status, location)) => {
                return (
                    Decision::Redirect { status, location },
                    "a route of the output",
                    false,
                );
            }
            Some(
                End::File(_)
                | End::Function
                | End::Forward(..)
                | End::Status(_)
                | End::Loop
                | End::Overrun,
            ) => return nothing,
            None => {}
        }
        let found = (here != self.path).then(|| self.look(&self.path)).flatten();
        match found {
            Some(End::File(file)) => {
                self.hit();
                (Decision::File { file, status }, reason, instead)
            }
            _ => nothing,
        }
    }

    fn decided(
        mut self,
        decision: Decision<S::File>,
        reason: &'static str,
        upstream_target: Option<String>,
    ) -> Decided<S::File> {
        for change in &self.changes {
            apply(change, &mut self.fields);
        }
        let mut decided = Decided::of(decision, reason);
        decided.line = self.line;
        decided.file = ".vercel/output/config.json";
        decided.by_language = self.by_language;
        decided.by_cookie = self.asked.cookies;
        if !(self.fields.is_empty() && self.asked.fields.is_empty() && upstream_target.is_none()) {
            decided.given = Some(Box::new(Given {
                fields: self.fields,
                asked: self.asked.fields,
                upstream_target,
            }));
        }
        decided
    }
}

/// `to` with the parameters of the request, which win over its own.
fn with_query(to: String, query: Option<&str>) -> String {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return to;
    };
    let (rest, fragment) = match to.split_once('#') {
        Some((rest, fragment)) => (rest, Some(fragment)),
        None => (to.as_str(), None),
    };
    let mut url = match rest.split_once('?') {
        Some((path, own)) => format!("{path}?{}", merged(own, Some(query))),
        None => format!("{rest}?{query}"),
    };
    if let Some(fragment) = fragment {
        url.push('#');
        url.push_str(fragment);
    }
    url
}

/// The parameters of a route and those of the request, which win.
fn merged(own: &str, query: Option<&str>) -> String {
    let theirs = query.filter(|query| !query.is_empty());
    let kept = pairs(Some(own)).filter(|(name, _)| !pairs(theirs).any(|(other, _)| other == *name));
    let mut all = String::new();
    for (name, value) in kept.chain(pairs(theirs)) {
        if !all.is_empty() {
            all.push('&');
        }
        all.push_str(name);
        if !value.is_empty() {
            all.push('=');
            all.push_str(value);
        }
    }
    all
}
