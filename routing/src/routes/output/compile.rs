//! From `config.json` to routes: everything that is wrong is said here, before anything is live.
//!
//! Pure. A route that no edge could carry out is refused by its number, its key and what to do instead.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::forward::MAX_UPSTREAMS;
use super::super::upstream::{Address, Upstream};
use super::super::{Forward, headers};
use super::having::{conditions, transform_key};
use super::matcher::Matcher;
use super::texts::{
    as_url, check_authority, check_count, check_template, in_ascii, is_printable, shown, split_url,
};
use super::written::{
    MAX_FIELDS, MAX_LOOK_AROUND, MAX_NAMED, MAX_OF_ONE, MAX_ROUTES, MAX_TEMPLATE_BYTES, OneOrMore,
    OutputConfig, WrittenRoute, WrittenTransform,
};
use super::{
    Condition, Destination, FileOverride, Operation, Output, OutputRoute, Phase, Step, Then,
    Transform, TransformKey,
};
use crate::artifact::{InvalidPath, check_path};
use crate::host::Host;

/// Statuses that send a client elsewhere.
const AWAY: [u16; 5] = [301, 302, 303, 307, 308];
/// What upstreams that routes name are called: no name in `helix.toml` can have a dot.
const UPSTREAM: &str = "output.";

/// Something in `config.json` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct OutputProblem {
    /// Its line, counted from 1.
    pub line: usize,
    /// What is wrong, with the route and its key, and what would be right.
    pub problem: String,
}

/// What an output comes to: its routes, and the servers that they name.
type Compiled = (Output, BTreeMap<String, Upstream>);

impl OutputConfig {
    /// The routes that it means; with `static_only`, without what needs a runtime.
    ///
    /// # Errors
    /// Everything that is wrong, each with its line.
    pub fn compile(&self, static_only: bool) -> Result<Compiled, Vec<OutputProblem>> {
        let mut compiler = Compiler {
            problems: Vec::new(),
            output: Output {
                functions: self.functions.clone(),
                unserved: self.unserved.clone(),
                ..Output::default()
            },
            upstreams: BTreeMap::new(),
            looking_around: 0,
            fields: BTreeSet::new(),
        };
        compiler.routes(&self.routes);
        compiler.wildcards(self);
        if !static_only {
            compiler.refuse_unserved();
        }
        if compiler.problems.is_empty() {
            Ok((compiler.output, compiler.upstreams))
        } else {
            Err(compiler.problems)
        }
    }
}

/// The path that a file of `static/` is served under, and its type if that is said; no path if it is not served at all.
///
/// # Errors
/// When the path cannot be that of a file.
pub fn check_file_override<'a>(
    path: &'a str,
    given: Option<&'a FileOverride>,
) -> Result<(Option<&'a str>, Option<&'a str>), InvalidPath> {
    let media_type = given.and_then(|given| given.content_type.as_deref());
    let Some(moved) = given.and_then(|given| given.path.as_deref()) else {
        return Ok((Some(path), media_type));
    };
    let moved = moved.strip_prefix('/').unwrap_or(moved);
    if moved.ends_with('/') {
        return Ok((None, media_type));
    }
    // The root is the page of that name.
    let moved = if moved.is_empty() { "index" } else { moved };
    check_path(moved)?;
    Ok((Some(moved), media_type))
}

struct Compiler {
    problems: Vec<OutputProblem>,
    output: Output,
    upstreams: BTreeMap<String, Upstream>,
    looking_around: usize,
    fields: BTreeSet<String>,
}

impl Compiler {
    fn routes(&mut self, routes: &[(usize, WrittenRoute)]) {
        if routes.len() > MAX_ROUTES {
            let problem = format!(
                "routes: has {} entries; {MAX_ROUTES} are possible",
                routes.len()
            );
            self.problems.push(OutputProblem { line: 1, problem });
            return;
        }
        let (mut phase, mut seen) = (Phase::Null, BTreeSet::new());
        for (at, (line, route)) in routes.iter().enumerate() {
            let outcome = match &route.handle {
                Some(handle) => handled(handle, route).and_then(|next| {
                    phase = next;
                    if seen.insert(next) {
                        Ok(None)
                    } else {
                        Err(format!("handle: there is another `{}`", shown(handle)))
                    }
                }),
                None => self.route(*line, phase, route),
            };
            match outcome {
                Ok(compiled) => self.output.routes.extend(compiled),
                Err(problem) => {
                    let problem = format!("routes[{at}].{problem}");
                    self.problems.push(OutputProblem {
                        line: *line,
                        problem,
                    });
                }
            }
        }
        if self.fields.len() > MAX_FIELDS {
            let problem = format!(
                "routes: give {} different fields; {MAX_FIELDS} are possible",
                self.fields.len()
            );
            self.problems.push(OutputProblem { line: 1, problem });
        }
        if self.looking_around > MAX_LOOK_AROUND {
            let problem = format!(
                "routes: {} patterns look around; {MAX_LOOK_AROUND} are possible, since each is tried for each request",
                self.looking_around
            );
            self.problems.push(OutputProblem { line: 1, problem });
        }
    }

    fn wildcards(&mut self, config: &OutputConfig) {
        if config.wildcard.len() > MAX_NAMED {
            let problem = format!("wildcard: more than {MAX_NAMED} hosts");
            self.problems.push(OutputProblem { line: 1, problem });
            return;
        }
        for (at, wildcard) in config.wildcard.iter().enumerate() {
            match wildcard.domain.parse::<Host>() {
                Ok(host) => {
                    let host = host.to_string();
                    self.output.wildcards.insert(host, wildcard.value.clone());
                }
                Err(_) => {
                    let problem = format!("wildcard[{at}].domain: is no host");
                    self.problems.push(OutputProblem { line: 1, problem });
                }
            }
        }
    }

    fn refuse_unserved(&mut self) {
        let functions = self.output.functions.keys();
        let mut needed: Vec<String> = functions
            .take(5)
            .map(|name| format!("function `{}`", shown(name)))
            .collect();
        if let Some(more @ 1..) = self.output.functions.len().checked_sub(needed.len()) {
            needed.push(format!("{more} more functions"));
        }
        needed.extend(self.output.unserved.iter().cloned());
        if !needed.is_empty() {
            let problem = format!(
                "the site needs {}, which edges do not run yet: build it without, or deploy what is static with --static-only",
                needed.join(", ")
            );
            self.problems.push(OutputProblem { line: 1, problem });
        }
    }

    fn unserved(&mut self, what: String) {
        if !self.output.unserved.contains(&what) {
            self.output.unserved.push(what);
        }
    }

    fn route(
        &mut self,
        line: usize,
        phase: Phase,
        route: &WrittenRoute,
    ) -> Result<Option<OutputRoute>, String> {
        if let Some(path) = &route.middleware_path {
            self.unserved(format!("middleware `{}`", shown(path)));
            return Ok(None);
        }
        if !route.middleware_raw_src.is_empty() || route.middleware.is_some() {
            return Err(
                "middlewarePath: is missing, so that nobody knows which function to call"
                    .to_owned(),
            );
        }
        let src = in_ascii(route.src.as_deref().ok_or("src: is missing")?);
        let matcher =
            Matcher::new(&src, route.case_sensitive).map_err(|wrong| format!("src: {wrong}"))?;
        self.looking_around += usize::from(matcher.looks_around());
        check_phase(phase, route)?;
        check_count("methods", route.methods.len(), MAX_OF_ONE)?;
        if let Some(method) = route.methods.iter().find(|method| !is_method(method)) {
            return Err(format!(
                "methods: `{}` is no method in capitals",
                shown(method)
            ));
        }
        let has = conditions("has", &route.has)?;
        let missing = conditions("missing", &route.missing)?;
        let mut steps = Vec::new();
        if route.overrides {
            steps.push(Step::Reset);
        }
        if let Some(locale) = &route.locale {
            steps.extend(locale_step(&locale.redirect, locale.cookie.as_deref())?);
        }
        let location = self.field_steps(route, &mut steps)?;
        for (at, transform) in route.transforms.iter().enumerate() {
            let step = self
                .transform(transform)
                .map_err(|wrong| format!("transforms[{at}].{wrong}"))?;
            steps.extend(step);
        }
        check_count("transforms", route.transforms.len(), MAX_OF_ONE)?;
        steps.extend(status(route)?.map(Step::Status));
        let to = self.destination(route, location, &has)?;
        Ok(Some(OutputRoute {
            line,
            phase,
            src,
            case_sensitive: route.case_sensitive,
            methods: route.methods.clone(),
            has,
            missing,
            steps,
            to,
            then: match (route.continues, route.check) {
                (true, _) => Then::Continue,
                (false, true) => Then::Check,
                (false, false) => Then::Stop,
            },
        }))
    }

    /// Adds a step for each field; where the client is sent is none of them, and returned.
    fn field_steps<'a>(
        &mut self,
        route: &'a WrittenRoute,
        steps: &mut Vec<Step>,
    ) -> Result<Option<&'a str>, String> {
        let mut location = None;
        for (name, value) in &route.headers {
            let key = |problem: String| format!("headers: {problem}");
            if name.eq_ignore_ascii_case("location") {
                location = Some(value.as_str());
                continue;
            }
            let name = headers::known(name).map_err(key)?;
            check_template(value)
                .map_err(|problem| key(format!("the value of `{name}` {problem}")))?;
            self.fields.insert(name.clone());
            steps.push(Step::Field(name, value.clone()));
        }
        Ok(location)
    }

    fn transform(&mut self, transform: &WrittenTransform) -> Result<Option<Step>, String> {
        let operation = match transform.op.as_str() {
            "append" => Operation::Append,
            "set" => Operation::Set,
            "delete" => Operation::Delete,
            other => {
                return Err(format!(
                    "op: `{}` is none of `append`, `set` and `delete`",
                    shown(other)
                ));
            }
        };
        match transform.kind.as_str() {
            "response.headers" => {}
            known @ ("request.headers" | "request.query" | "request.path") => {
                self.unserved(format!("transforms of `{known}`"));
                return Ok(None);
            }
            other => return Err(format!("type: `{}` is not known", shown(other))),
        }
        let target = transform.target.as_ref().ok_or("target: is missing")?;
        let key = transform_key(&target.key)?;
        if operation != Operation::Delete && !matches!(key, TransformKey::Names(_)) {
            return Err("target.key: only `delete` takes a part of a name".to_owned());
        }
        if let TransformKey::Names(names) = &key {
            self.fields.extend(names.iter().cloned());
        }
        let values = match &transform.args {
            None => Vec::new(),
            Some(OneOrMore::One(value)) => Vec::from([value.clone()]),
            Some(OneOrMore::More(values)) => values.clone(),
        };
        check_count("args", values.len(), MAX_OF_ONE)?;
        if values.is_empty() && operation != Operation::Delete {
            return Err("args: is missing".to_owned());
        }
        for value in &values {
            check_template(value).map_err(|problem| format!("args: a value {problem}"))?;
        }
        Ok(Some(Step::Transform(Transform {
            operation,
            key,
            values,
        })))
    }

    fn destination(
        &mut self,
        route: &WrittenRoute,
        location: Option<&str>,
        has: &[Condition],
    ) -> Result<Option<Destination>, String> {
        let away = route.status.is_some_and(|status| AWAY.contains(&status));
        let (key, to) = match (location, route.dest.as_deref()) {
            (Some(location), _) if away => ("headers.Location", location),
            (Some(_), _) => {
                return Err("status: a `Location` needs 301, 302, 303, 307 or 308".to_owned());
            }
            (None, Some(dest)) => ("dest", dest),
            (None, None) if away => {
                return Err("status: sends clients elsewhere, and neither `dest` nor a `Location` says where".to_owned());
            }
            (None, None) => return Ok(None),
        };
        let wrong = |problem: String| format!("{key}: {problem}");
        check_template(to).map_err(wrong)?;
        let to = as_url(to);
        let Some((scheme, authority, path)) = split_url(&to) else {
            if to.starts_with("//") {
                return Err(wrong(
                    "starts with `//`, which means another host: write its URL".to_owned(),
                ));
            }
            if away && !to.starts_with(['/', '$', '#', '?']) {
                return Err(wrong(
                    "is neither a path nor the URL of a website".to_owned(),
                ));
            }
            return Ok(Some(if away {
                Destination::Away(to)
            } else {
                Destination::Path(to)
            }));
        };
        if away {
            check_authority(authority, has).map_err(wrong)?;
            return Ok(Some(Destination::Away(to)));
        }
        if route.continues {
            return Err(wrong(
                "leads to another server, where `continue` is not possible".to_owned(),
            ));
        }
        self.forward(scheme, authority, path)
            .map(Some)
            .map_err(wrong)
    }

    fn forward(
        &mut self,
        scheme: &str,
        authority: &str,
        path: &str,
    ) -> Result<Destination, String> {
        if authority.contains('$') {
            return Err("leads to a server whose name depends on the request, which an edge does not look for: write it out".to_owned());
        }
        let address: Address = format!("{scheme}://{authority}").parse().map_err(|_| {
            "leads to what is no host: write `https://`, a host and a path".to_owned()
        })?;
        let name = format!("{UPSTREAM}{scheme}.{authority}");
        let host = Host::from_authority(authority).ok();
        let found = self
            .output
            .forwards
            .iter()
            .position(|forward| forward.upstream == name);
        let at = found.unwrap_or(self.output.forwards.len());
        if found.is_none() {
            check_count("routes lead to more servers", at + 1, MAX_UPSTREAMS)?;
            self.output.forwards.push(Forward {
                path: "/*".to_owned(),
                upstream: name.clone(),
                strip: None,
                cache: false,
            });
            self.upstreams.insert(name, Upstream::of(address, host));
        }
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        Ok(Destination::Forward(at, path))
    }
}

fn handled(handle: &str, route: &WrittenRoute) -> Result<Phase, String> {
    let alone = WrittenRoute {
        handle: route.handle.clone(),
        ..WrittenRoute::default()
    };
    if *route != alone {
        return Err("handle: stands alone, without other keys".to_owned());
    }
    Ok(match handle {
        "filesystem" => Phase::Filesystem,
        "rewrite" => Phase::Rewrite,
        "resource" => Phase::Resource,
        "miss" => Phase::Miss,
        "hit" => Phase::Hit,
        "error" => Phase::Error,
        other => {
            return Err(format!(
                "handle: `{}` is none of `filesystem`, `rewrite`, `resource`, `miss`, `hit` and `error`",
                shown(other)
            ));
        }
    })
}

/// What routes of a phase may not do.
fn check_phase(phase: Phase, route: &WrittenRoute) -> Result<(), String> {
    let wrong = match phase {
        Phase::Hit if route.dest.is_some() => {
            "dest: is not possible after `hit`, which only adds fields"
        }
        Phase::Hit if route.status.is_some() => {
            "status: is not possible after `hit`, which only adds fields"
        }
        Phase::Hit if !route.continues => "continue: must be true after `hit`",
        Phase::Miss if route.dest.is_some() && !route.check => {
            "check: must be true after `miss`, where there is a `dest`"
        }
        Phase::Miss if route.dest.is_none() && !route.continues => {
            "continue: must be true after `miss`, where there is no `dest`"
        }
        Phase::Null
        | Phase::Filesystem
        | Phase::Rewrite
        | Phase::Resource
        | Phase::Miss
        | Phase::Hit
        | Phase::Error => return Ok(()),
    };
    Err(wrong.to_owned())
}

fn status(route: &WrittenRoute) -> Result<Option<u16>, String> {
    if let Some(mitigation) = &route.mitigate {
        return match mitigation.action.as_str() {
            "deny" => Ok(Some(403)),
            other => Err(format!(
                "mitigate.action: `{}` is not possible here, only `deny`",
                shown(other)
            )),
        };
    }
    match route.status {
        Some(status)
            if !(200..=299).contains(&status)
                && !(400..=599).contains(&status)
                && !AWAY.contains(&status) =>
        {
            Err(format!(
                "status: {status} is none that a route can give: 200 to 299, 301, 302, 303, 307, 308, 400 to 599"
            ))
        }
        status => Ok(status),
    }
}

fn locale_step(
    redirect: &BTreeMap<String, String>,
    cookie: Option<&str>,
) -> Result<Option<Step>, String> {
    check_count("locale.redirect", redirect.len(), MAX_NAMED)?;
    let mut lower = BTreeMap::new();
    for (language, to) in redirect {
        let legal = (to.starts_with('/') && !to.starts_with("//")) || split_url(to).is_some();
        if !legal || to.len() > MAX_TEMPLATE_BYTES || !is_printable(to) || to.contains(' ') {
            return Err(format!(
                "locale.redirect: where `{}` leads is neither a path nor a URL",
                shown(language)
            ));
        }
        lower.insert(language.to_ascii_lowercase(), to.clone());
    }
    let cookie = cookie.map(ToOwned::to_owned);
    Ok((!lower.is_empty()).then_some(Step::Locale {
        redirect: lower,
        cookie,
    }))
}

fn is_method(method: &str) -> bool {
    (1..=32).contains(&method.len())
        && method
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}
