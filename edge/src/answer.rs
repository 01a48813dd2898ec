//! What a request gets: the seam between every protocol and everything that can be served.
//!
//! Pure: a [`RequestHead`] in, an [`Answer`] out, the same for every protocol, and for `helix explain`, which asks without a request. It
//! writes nothing and reads no file; whoever carries the answer out adds only what belongs to its protocol.

use std::borrow::Cow;
use std::sync::Arc;

use helix_framing::Fields;
use helix_routing::host::Host;
use helix_routing::id::{Environment, SiteId};
use helix_routing::routes::output::Given;
use helix_routing::routes::{
    BadPath, Decided, Decision, HttpsPolicy, Target, decode, is_asset, is_immutable,
};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, VARY};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::counted::Counted;
use crate::in_flight::InFlight;
use crate::protection::{self, Guarded};
use crate::release::{File, Release};
pub use crate::static_files::StaticFile;
use crate::static_files::{goes_beside, serve};
use crate::table::{HostRule, Resolved, Serving, Table};
use crate::visitor::{self, Chosen, Side};

const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// Kept by caches, but asked about each time, so that a cutover is seen at once.
const REVALIDATE: HeaderValue = HeaderValue::from_static("public, max-age=0, must-revalidate");
/// Where authorities look for proofs of a host, without TLS (RFC 8555 8.3): that is how it gets its first certificate.
pub(crate) const ACME_FOLDER: &str = "/.well-known/acme-challenge/";
const BY_LANGUAGE: HeaderValue = HeaderValue::from_static("accept-language");
const BY_COOKIE: HeaderValue = HeaderValue::from_static("cookie");

/// What is known of a request before its body: the same from every protocol.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its authority, as sent.
    pub authority: &'a str,
    /// Its path, escaped as sent.
    pub path: &'a str,
    /// Its query, without the question mark.
    pub query: Option<&'a str>,
    /// Its header fields.
    pub fields: Fields<'a>,
    /// Whether the client came over TLS.
    pub secure: bool,
}

/// What is served, held from the first byte of a request to its last.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The site.
    pub site: Arc<SiteId>,
    /// Why the host means it.
    pub rule: HostRule,
    /// What the site served when the request came.
    pub serving: Arc<Serving>,
    /// The release that answers, if there is one.
    pub release: Option<Arc<Release>>,
    /// What was chosen for this visitor, where not all get the same.
    pub chosen: Option<Box<Chosen>>,
}

impl Pinned {
    /// Whether search engines are to leave this alone: previews, and releases by their own name.
    #[must_use]
    pub fn is_unlisted(&self) -> bool {
        matches!(self.rule, HostRule::Release(_))
            || matches!(self.site.environment, Environment::Preview(_))
    }

    /// Whether what is answered is for its visitor alone: another may get something else, or nothing.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.chosen.is_some() || self.serving.protection.is_some()
    }

    /// What is in flight beside it: on the live release, or on one that is asked for by its own name.
    #[must_use]
    pub fn in_flight(&self) -> &InFlight {
        match (&self.rule, &self.release) {
            (HostRule::Release(_), Some(release)) => &release.in_flight,
            _ => &self.serving.in_flight,
        }
    }

    /// Where its requests are counted: those to the live release under its site's names, and of a share of the visitors those to
    /// the candidate. Who has pinned a release is no measure of it.
    #[must_use]
    pub fn counted(&self) -> Option<&Arc<Counted>> {
        if self.release.is_none() || matches!(self.rule, HostRule::Release(_)) {
            return None;
        }
        match self.side() {
            None | Some(Side::Live) => Some(&self.serving.counted),
            Some(Side::Candidate) => {
                let canary = self.serving.split.as_ref()?.canary.as_ref()?;
                Some(&canary.counted)
            }
            Some(Side::Pinned) => None,
        }
    }

    /// Which side the visitor is on, where there are sides.
    #[must_use]
    pub fn side(&self) -> Option<Side> {
        self.chosen.as_ref().map(|chosen| chosen.side)
    }
}

/// What a request gets, and from where.
#[derive(Debug)]
pub struct Answered {
    /// The site and release, if the host means one.
    pub pinned: Option<Pinned>,
    /// What to send.
    pub answer: Answer,
    /// Why, in a few words, for people.
    pub reason: &'static str,
    /// The line of `_redirects` that says so, if one does.
    pub line: Option<usize>,
}

/// What a request gets.
#[derive(Debug)]
pub enum Answer {
    /// A response that is whole already.
    Respond(Response),
    /// A file of the pinned release.
    Static(StaticFile),
    /// To be sent on to an upstream of the pinned release.
    Forward(ForwardTo),
    /// What who is not let in gets.
    Guarded(Guarded),
}

impl Answer {
    /// Its status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Respond(response) => response.status,
            Self::Static(file) => file.status,
            // Only the upstream knows.
            Self::Forward(_) => StatusCode::OK,
            Self::Guarded(guarded) => guarded.status(),
        }
    }

    /// Its header fields, beyond those of the protocol and of the pinned release.
    #[must_use]
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::Respond(response) => response.headers.clone(),
            Self::Forward(_) | Self::Guarded(_) => Vec::new(),
            Self::Static(file) => file.headers(),
        }
    }
}

/// A response that is whole already.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body; none where the status allows none.
    pub body: Option<Cow<'static, str>>,
}

impl Response {
    /// A line of text, not to be kept by caches.
    #[must_use]
    pub fn text(status: StatusCode, line: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            headers: vec![(CONTENT_TYPE, TEXT), (CACHE_CONTROL, NO_STORE)],
            body: Some(line.into()),
        }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// Where a request is sent on to.
#[derive(Clone, Debug)]
pub struct ForwardTo {
    /// Which of the release's [forwards](helix_routing::routes::Routes::forward).
    pub rule: usize,
    /// Path and query there, where a route says so; else the request's own, as the rule has them.
    pub target: Option<Box<str>>,
}

/// Decides what `head` gets.
#[must_use]
pub fn answer(table: &Table, head: &RequestHead<'_>) -> Answered {
    let Some(pinned) = pin(table, head) else {
        let response = Response::text(StatusCode::NOT_FOUND, "no site has this host\n");
        return Answered {
            pinned: None,
            answer: Answer::Respond(response),
            reason: "no host record, and no release has this name",
            line: None,
        };
    };
    let held = pinned.serving.protection.as_deref();
    let Some(protection) = held.filter(|_| !sends_to_tls(table, &pinned, head)) else {
        return answer_pinned(table, pinned, head);
    };
    if let Some((guarded, reason)) = protection::check(table.visitors(), &pinned, protection, head)
    {
        return Answered {
            pinned: Some(pinned),
            answer: Answer::Guarded(guarded),
            reason,
            line: None,
        };
    }
    let query = protection::query_without_pass(head.query);
    let mut head = *head;
    head.query = query.as_deref();
    answer_pinned(table, pinned, &head)
}

/// Whether it is only told that the same is to be had over TLS: nobody is to show what lets them in before.
fn sends_to_tls(table: &Table, pinned: &Pinned, head: &RequestHead<'_>) -> bool {
    let release = pinned.release.as_ref();
    release.is_some_and(|release| over_tls(table, release, head).is_some())
}

/// The same, for a request whose host means this.
#[must_use]
pub(crate) fn answer_pinned(table: &Table, mut pinned: Pinned, head: &RequestHead<'_>) -> Answered {
    let Some(release) = &pinned.release else {
        let response = Response::text(StatusCode::NOT_FOUND, "nothing is live here\n");
        return Answered {
            pinned: Some(pinned),
            answer: Answer::Respond(response),
            reason: "nothing is live here",
            line: None,
        };
    };
    let (made, from) = match over_tls(table, release, head) {
        Some(made) => (made, None),
        None => by_release(&pinned, release, head),
    };
    // A file of a release before is sent, and marked, as that release's.
    if from.is_some() {
        pinned.release = from;
    }
    Answered {
        pinned: Some(pinned),
        answer: made.answer,
        reason: made.reason,
        line: made.line,
    }
}

/// An answer, and why.
struct Made {
    answer: Answer,
    reason: &'static str,
    line: Option<usize>,
}

impl Made {
    const fn respond(response: Response, reason: &'static str) -> Self {
        Self {
            answer: Answer::Respond(response),
            reason,
            line: None,
        }
    }
}

/// Loads what the host means, once, and which release of it this visitor gets.
fn pin(table: &Table, head: &RequestHead<'_>) -> Option<Pinned> {
    let host = Host::from_authority(head.authority).ok()?;
    Some(match table.resolve(host) {
        Resolved::Nobody => return None,
        Resolved::Site { site, rule } => {
            let serving = site.serving();
            let (release, chosen) = match &serving.split {
                None => (serving.live.clone(), None),
                Some(split) => {
                    let of = (&*serving, &**split);
                    let (release, chosen) = visitor::choose(table.visitors(), &site.id, of, head);
                    (release, Some(Box::new(chosen)))
                }
            };
            Pinned {
                site: Arc::clone(&site.id),
                rule,
                release,
                serving,
                chosen,
            }
        }
        Resolved::Release {
            site,
            serving,
            release,
        } => Pinned {
            site: Arc::clone(&site.id),
            rule: HostRule::Release(release.id.clone()),
            serving,
            release: Some(release),
            chosen: None,
        },
    })
}

/// Where a site wants TLS and a request came without: where the same is to be had over it.
fn over_tls(table: &Table, release: &Release, head: &RequestHead<'_>) -> Option<Made> {
    let wanted = release.routes.https == HttpsPolicy::Redirect
        && !head.secure
        && head.path.starts_with('/')
        && !head.path.starts_with(ACME_FOLDER);
    let port = table.secure_port().filter(|_| wanted)?;
    let host = Host::from_authority(head.authority).ok()?;
    let mut location = match port {
        443 => format!("https://{host}{}", head.path),
        port => format!("https://{host}:{port}{}", head.path),
    };
    if let Some(query) = head.query {
        location.push('?');
        location.push_str(query);
    }
    let response = redirect(308, &location, Vec::new());
    Some(Made::respond(response, "the site wants TLS"))
}

/// What `release` answers; with the release before it that has the file, if only that has.
fn by_release(
    pinned: &Pinned,
    release: &Arc<Release>,
    head: &RequestHead<'_>,
) -> (Made, Option<Arc<Release>>) {
    let path = match decode(head.path) {
        Ok(Some(path)) => path,
        Ok(None) if *head.method == Method::OPTIONS => return (options(), None),
        Ok(None) => {
            let response = Response::text(StatusCode::NOT_FOUND, "not found\n");
            return (Made::respond(response, "no file can have this path"), None);
        }
        Err(bad) => {
            // What an upstream takes for a path is its own matter.
            let made = sent_on(head, release.routes.forward_for(head.path), None);
            return (made.unwrap_or_else(|| refused(bad)), None);
        }
    };
    let target = Target {
        raw: head.path,
        path: &path,
        query: head.query,
    };
    let decided = release
        .rules()
        .decide(&release.routes, &&**release, target, head);
    if let Decision::Forward(rule) = decided.decision
        && let Some(made) = sent_on(head, Some(rule), decided.given.as_deref())
    {
        return (made, None);
    }
    // Routes of an output may be for any method; its files are not.
    let is_file = matches!(decided.decision, Decision::File { .. });
    if (is_file || release.routes.output.is_none())
        && let Some(made) = by_method(head, &decided)
    {
        return (with_rules(made, release, &path.path, head), None);
    }
    if decided.instead
        && let Some((earlier, file)) = earlier(pinned, &path.path)
    {
        let fields = fields(earlier, &path.path, head);
        let (answer, reason) = serve(file, StatusCode::OK, head, fields);
        let made = Made {
            answer,
            reason: reason.unwrap_or("file of a release before, for pages that are still open"),
            line: None,
        };
        let made = with_rules(made, earlier, &path.path, head);
        return (made, Some(Arc::clone(earlier)));
    }
    let made = carried_out(release, head, &path.path, decided);
    (with_rules(made, release, &path.path, head), None)
}

/// What is no file carries the fields of `_headers` too, but for those that tell of a file: browsers need them with every answer.
fn with_rules(mut made: Made, release: &Release, path: &str, head: &RequestHead<'_>) -> Made {
    if let Answer::Respond(response) = &mut made.answer
        && response.status != StatusCode::NOT_MODIFIED
    {
        for (name, value) in fields(release, path, head) {
            let is_there = |(held, other): &(HeaderName, HeaderValue)| {
                *held == name && (name != VARY || *other == value)
            };
            if goes_beside(&name) && !response.headers.iter().any(is_there) {
                response.headers.push((name, value));
            }
        }
    }
    made
}

/// What is forwarded may have any method but those that are about the connection or repeat the request.
fn sent_on(head: &RequestHead<'_>, rule: Option<usize>, given: Option<&Given>) -> Option<Made> {
    let hop_only = matches!(*head.method, Method::CONNECT | Method::TRACE);
    rule.filter(|_| !hop_only).map(|rule| Made {
        answer: Answer::Forward(ForwardTo {
            rule,
            target: given.and_then(|given| given.upstream_target.as_deref().map(Box::from)),
        }),
        reason: "forwarded",
        line: None,
    })
}

/// The file of another release that pages still ask for: one that was live lately, or that others get now. Never a page.
fn earlier<'a>(pinned: &'a Pinned, path: &str) -> Option<(&'a Arc<Release>, &'a Arc<File>)> {
    if matches!(pinned.rule, HostRule::Release(_)) || !(is_asset(path) || is_immutable(path)) {
        return None;
    }
    let serving = &pinned.serving;
    let lately = serving.kept.iter();
    let lately = lately.filter(|release| release.was_live_lately());
    let beside = serving.split.iter().flat_map(|split| split.releases());
    let beside = beside.chain(pinned.chosen.iter().flat_map(|_| &serving.live));
    beside
        .chain(lately)
        .find_map(|release| Some((release, release.file(path)?)))
}

fn options() -> Made {
    let response = Response {
        status: StatusCode::NO_CONTENT,
        headers: vec![(ALLOW, ALLOWED)],
        body: None,
    };
    Made::respond(response, "methods asked for")
}

fn refused(bad: BadPath) -> Made {
    let response = Response::text(StatusCode::BAD_REQUEST, format!("{bad}\n"));
    Made::respond(response, "no file can have this path")
}

/// What methods get that files do not take. Redirects are for all methods.
fn by_method(head: &RequestHead<'_>, decided: &Decided<&Arc<File>>) -> Option<Made> {
    let sends_away = matches!(decided.decision, Decision::Redirect { .. });
    Some(match *head.method {
        Method::GET | Method::HEAD => return None,
        Method::OPTIONS => options(),
        Method::POST | Method::PUT | Method::DELETE | Method::PATCH if sends_away => return None,
        Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::CONNECT
        | Method::PATCH
        | Method::TRACE => Made::respond(
            Response::text(StatusCode::METHOD_NOT_ALLOWED, "files take GET and HEAD\n")
                .with(ALLOW, ALLOWED),
            "method not allowed on files",
        ),
        _ => Made::respond(
            Response::text(StatusCode::NOT_IMPLEMENTED, "unknown method\n"),
            "unknown method",
        ),
    })
}

fn carried_out(
    release: &Release,
    head: &RequestHead<'_>,
    path: &str,
    decided: Decided<&Arc<File>>,
) -> Made {
    let mut varies = Vec::new();
    if decided.by_language {
        varies.push((VARY, BY_LANGUAGE));
    }
    if decided.by_cookie {
        varies.push((VARY, BY_COOKIE));
    }
    let mut gives = decided
        .given
        .as_ref()
        .map_or_else(Vec::new, |gave| given(gave, head));
    let is_file = matches!(decided.decision, Decision::File { .. });
    let mut reason = decided.reason;
    let mut answer = match decided.decision {
        Decision::File { file, status } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let mut fields = fields(release, path, head);
            fields.append(&mut varies);
            fields.append(&mut gives);
            let (mut answer, why) = serve(file, status, head, fields);
            if let Answer::Static(file) = &mut answer {
                file.transient = !status.is_success() && is_immutable(path);
            }
            reason = why.unwrap_or(reason);
            answer
        }
        Decision::Redirect { status, location } => {
            Answer::Respond(redirect(status, &location, varies))
        }
        Decision::Forward(rule) => Answer::Forward(ForwardTo { rule, target: None }),
        Decision::Nothing { status } => {
            let mut response = nothing(status);
            response.headers.append(&mut varies);
            Answer::Respond(response)
        }
    };
    if let (Answer::Respond(response), false) = (&mut answer, is_file) {
        give_beside(response, gives);
    }
    Made {
        answer,
        reason,
        line: decided.line,
    }
}

/// A response that only has a status.
fn nothing(status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND);
    match status {
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => Response {
            status,
            headers: vec![(CACHE_CONTROL, NO_STORE)],
            body: None,
        },
        _ => {
            let reason = status.canonical_reason().unwrap_or("no reason is known");
            Response::text(status, format!("{}\n", reason.to_ascii_lowercase()))
        }
    }
}

/// What routes of an output gave, and what another request could have got otherwise.
fn given(given: &Given, head: &RequestHead<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let fields = given.fields.iter().filter_map(|(name, value)| {
        let name = HeaderName::try_from(name.as_str()).ok()?;
        let value = HeaderValue::try_from(value.as_str()).ok()?;
        let is_sent = head.secure || name != http::header::STRICT_TRANSPORT_SECURITY;
        is_sent.then_some((name, value))
    });
    let asked = given.asked.iter();
    let varies = asked.filter_map(|name| Some((VARY, HeaderValue::try_from(name.as_str()).ok()?)));
    fields.chain(varies).collect()
}

/// Adds such fields to a response that is no file.
fn give_beside(response: &mut Response, fields: Vec<(HeaderName, HeaderValue)>) {
    for (name, value) in fields.into_iter().filter(|(name, _)| goes_beside(name)) {
        match response
            .headers
            .iter_mut()
            .find(|(held, _)| *held == name && name != VARY)
        {
            Some((_, held)) => *held = value,
            None => response.headers.push((name, value)),
        }
    }
}

fn redirect(status: u16, location: &str, mut varies: Vec<(HeaderName, HeaderValue)>) -> Response {
    let mut headers = vec![(CACHE_CONTROL, REVALIDATE)];
    headers.append(&mut varies);
    Response {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::TEMPORARY_REDIRECT),
        headers,
        body: Some("".into()),
    }
    .with(
        LOCATION,
        HeaderValue::try_from(location).unwrap_or(HeaderValue::from_static("/")),
    )
}

/// What `_headers` says for `path`. Strict transport security only means something where there is some.
fn fields(release: &Release, path: &str, head: &RequestHead<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut fields = release.fields(path);
    if !head.secure {
        fields.retain(|(name, _)| *name != http::header::STRICT_TRANSPORT_SECURITY);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use helix_routing::id::{Digest, Generation};
    use http::HeaderMap;

    fn table() -> Table {
        let digest = Digest::from_hex(&"0".repeat(64)).unwrap();
        let files = [
            ("index.html", "text/html"),
            ("dir/index.html", "text/html"),
            ("404.html", "text/html"),
            ("a.txt", "text/plain"),
        ];
        let files = files.map(|(path, kind)| (path, kind, Bytes::from(path)));
        let release = Arc::new(Release::from_memory(
            "aaaaaaaaaaaaaaaaaaaa".parse().unwrap(),
            digest,
            files,
        ));
        let table = Table::new("helix.localhost".parse().unwrap());
        for (host, site) in [
            ("shop.example", "shop/production"),
            ("new.example", "new/production"),
            ("p.example", "shop/preview/1"),
        ] {
            table.set_host(&host.parse().unwrap(), Some(&site.parse().unwrap()));
        }
        for site in ["shop/production", "shop/preview/1"] {
            let serving = Serving::new(Generation(3), Some(Arc::clone(&release)), Vec::new());
            table.publish(&site.parse().unwrap(), serving);
        }
        table
    }

    fn ask(method: &str, authority: &str, target: &str, headers: &HeaderMap) -> Answered {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        answer(
            &table(),
            &RequestHead {
                method: &method,
                authority,
                path,
                query,
                fields: Fields::Map(headers),
                secure: false,
            },
        )
    }

    #[test]
    fn requests_get_files_pages_and_redirects() {
        for (method, authority, target, status) in [
            ("GET", "shop.example", "/", 200),
            ("HEAD", "SHOP.example.:8080", "/a.txt", 200),
            ("GET", "shop.example", "/dir", 307),
            ("GET", "shop.example", "/missing", 404),
            ("GET", "shop.example", "/%zz", 400),
            ("POST", "shop.example", "/", 405),
            ("BREW", "shop.example", "/", 501),
            ("OPTIONS", "shop.example", "/", 204),
            ("OPTIONS", "shop.example", "*", 204),
            ("GET", "new.example", "/", 404),
            ("GET", "nobody.example", "/", 404),
            ("GET", "[::1]:80", "/", 404),
            ("GET", "", "/", 404),
            (
                "GET",
                "aaaaaaaaaaaaaaaaaaaa.preview.shop.helix.localhost",
                "/",
                200,
            ),
        ] {
            let answered = ask(method, authority, target, &HeaderMap::new());
            assert_eq!(
                answered.answer.status().as_u16(),
                status,
                "{method} {authority} {target}"
            );
        }
    }

    #[test]
    fn a_redirect_to_a_folder_keeps_the_query() {
        let answered = ask("GET", "shop.example", "/dir?a=b&c", &HeaderMap::new());
        assert!(
            answered
                .answer
                .headers()
                .contains(&(LOCATION, HeaderValue::from_static("/dir/?a=b&c")))
        );
    }

    #[test]
    fn a_client_that_has_the_file_is_told_so_with_its_validator() {
        let Answer::Static(StaticFile { file, .. }) =
            ask("GET", "shop.example", "/a.txt", &HeaderMap::new()).answer
        else {
            unreachable!("a file that exists is no response");
        };
        let headers =
            HeaderMap::from_iter([(http::header::IF_NONE_MATCH, file.identity().etag.clone())]);
        for method in ["GET", "HEAD"] {
            let answered = ask(method, "shop.example", "/a.txt", &headers);
            assert_eq!(answered.answer.status(), StatusCode::NOT_MODIFIED);
            assert!(
                answered
                    .answer
                    .headers()
                    .contains(&(http::header::ETAG, file.identity().etag.clone()))
            );
        }
        assert_eq!(
            ask("GET", "shop.example", "/", &headers).answer.status(),
            StatusCode::OK
        );
        let any =
            HeaderMap::from_iter([(http::header::IF_NONE_MATCH, HeaderValue::from_static("*"))]);
        assert_eq!(
            ask("GET", "shop.example", "/missing", &any).answer.status(),
            StatusCode::NOT_FOUND
        );
    }

    #[test]
    fn previews_and_releases_by_name_are_unlisted() {
        let unlisted = |authority| {
            ask("GET", authority, "/", &HeaderMap::new())
                .pinned
                .unwrap()
                .is_unlisted()
        };
        assert!(!unlisted("shop.example"));
        assert!(unlisted("p.example"));
        assert!(unlisted(
            "aaaaaaaaaaaaaaaaaaaa.preview.shop.helix.localhost"
        ));
    }

    #[test]
    fn what_a_client_claims_in_our_own_headers_changes_nothing() {
        let name = HeaderName::from_static("x-helix-release");
        let headers =
            HeaderMap::from_iter([(name, HeaderValue::from_static("bbbbbbbbbbbbbbbbbbbb"))]);
        let pinned = ask("GET", "shop.example", "/", &headers).pinned.unwrap();
        assert_eq!(pinned.release.unwrap().id.as_str(), "aaaaaaaaaaaaaaaaaaaa");
    }
}
