//! Who is let in where a site is protected.
//!
//! ```text
//!  reserved path ──POST──▶ password ──right──▶ a session's cookie, and back to where one came from
//!  exempt path, or ACME's ──▶ in
//!  x-helix-access ──good──▶ in
//!  ?_helix_access= ──good──▶ a session's cookie, and the same URL without it
//!  cookie ──good──▶ in
//!  anything else ──▶ 401, with a form for browsers
//! ```
//!
//! It is asked before anything of a release is: before its rules, its files and what is kept of its upstreams. Invariant: an edge that
//! cannot check lets nobody in. Of a site without protection there is nothing to look at but an option. What lets in never
//! reaches a rule of the release, an upstream or a log, and no answer is kept for who was not let in.

mod attempts;
mod link;
mod login;
mod page;

use std::borrow::Cow;

use helix_routing::protection::Protection;
use helix_service::clock;
use helix_service::pass::{Key, Kind};
use http::header::{CACHE_CONTROL, COOKIE, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderName, HeaderValue, Method, StatusCode};

pub use self::attempts::Attempts;
pub(crate) use self::link::{logged, query_without_pass};
pub(crate) use self::login::respond;
use self::page::Said;
use crate::answer::{ACME_FOLDER, NO_STORE, Pinned, RequestHead, Response};
use crate::exchange::Request;
use crate::visitor::{Visitors, cookies};

/// Where the form's password goes. Only protected sites lose this path.
pub const LOGIN_PATH: &str = "/.helix/access";
/// The header by which programs show a pass.
pub const PASS_HEADER: HeaderName = HeaderName::from_static("x-helix-access");
/// The parameter by which a link shows one.
pub const PARAMETER: &str = "_helix_access";
/// The cookie of a session.
const COOKIE_NAME: &str = "__helix_access";
/// Cookies of that name that are looked at: a browser sends one, but for those that a host above set.
const MAX_COOKIES: usize = 8;
/// How long a session lasts, in seconds.
const SESSION_LIFE: u64 = 7 * 24 * 60 * 60;

/// What a protected site answers before anybody is let in.
#[derive(Debug)]
pub enum Guarded {
    /// Nobody is.
    Refuse(Response),
    /// A pass became a session: go on from there.
    Enter(Response),
    /// A password is in the body.
    Login {
        /// Whether to speak HTML.
        html: bool,
    },
}

impl Guarded {
    /// Its status, as far as it is known without the body.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Refuse(response) | Self::Enter(response) => response.status,
            Self::Login { .. } => StatusCode::SEE_OTHER,
        }
    }
}

/// What `head` gets instead of what the site has; none when it is let in.
pub(crate) fn check(
    visitors: &Visitors,
    pinned: &Pinned,
    protection: &Protection,
    head: &RequestHead<'_>,
) -> Option<(Guarded, &'static str)> {
    // Asked for first: an answer that depends on such a field is not remembered by any core.
    let shown = head.fields.first(&PASS_HEADER);
    let is_login = head.path == LOGIN_PATH;
    if is_login && *head.method == Method::POST {
        let html = page::is_wanted(head);
        return Some((Guarded::Login { html }, "a password is to be checked"));
    }
    if !is_login && is_open(protection, head.path) {
        return None;
    }
    let door = Door::new(visitors, pinned, protection);
    let Some(door) = door else {
        let refused = page::refused(head, protection, Said::NoKey);
        return Some((
            Guarded::Refuse(refused),
            "this edge has no key to check passes with",
        ));
    };
    if shown.is_some_and(|pass| door.reads(Kind::Link, pass).is_some()) {
        return None;
    }
    if let Some(entered) = door.enter_by_link(head) {
        return Some((Guarded::Enter(entered), "let in by a link"));
    }
    let mut held = cookies(head.fields, COOKIE_NAME).take(MAX_COOKIES);
    if held.any(|pass| door.reads(Kind::Session, pass).is_some()) {
        return is_login.then(|| (Guarded::Enter(away("/")), "let in already"));
    }
    let refused = page::refused(head, protection, Said::Nothing);
    Some((
        Guarded::Refuse(refused),
        "the site is protected, and no pass was shown",
    ))
}

/// The request as an upstream of a protected site sees it; none where it may see all of it.
pub(crate) fn for_upstream(pinned: Option<&Pinned>, request: &Request) -> Option<Request> {
    pinned?.serving.protection.as_ref()?;
    Some(link::stripped(request))
}

/// Whether `path` is answered unasked: by a rule, or since an authority asks there for a proof of the host.
fn is_open(protection: &Protection, path: &str) -> bool {
    let is_proof = path.strip_prefix(ACME_FOLDER).is_some_and(|token| {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !token.is_empty() && token.bytes().all(is_token)
    });
    is_proof || protection.exempts(path)
}

/// What passes of a site are checked and made with.
struct Door {
    key: Key,
    /// What was signed with another key of the fleet counts, too.
    also: Vec<Key>,
    site: String,
    now: u64,
}

impl Door {
    /// None while this edge has no key.
    fn new(visitors: &Visitors, pinned: &Pinned, protection: &Protection) -> Option<Self> {
        let (key, also) = visitors.pass_keys(&protection.secret)?;
        Some(Self {
            key,
            also,
            site: pinned.site.to_string(),
            now: clock::now().as_millis() / 1000,
        })
    }

    /// When the pass ends, if it is good.
    fn reads(&self, kind: Kind, pass: &[u8]) -> Option<u64> {
        let mut keys = std::iter::once(&self.key).chain(&self.also);
        keys.find_map(|key| key.read(kind, &self.site, self.now, pass))
    }

    /// Who opens a link gets a session that ends no later than it, and the same URL without the pass.
    fn enter_by_link(&self, head: &RequestHead<'_>) -> Option<Response> {
        if !matches!(*head.method, Method::GET | Method::HEAD) {
            return None;
        }
        let pass = link::pass_of(head.query?)?;
        let end = self.reads(Kind::Link, pass.as_bytes())?;
        let target = link::without_pass(head.path, head.query);
        let target = if head.path == LOGIN_PATH {
            "/"
        } else {
            &target
        };
        Some(self.let_in(target, end, head.secure))
    }

    /// A session, and where it begins.
    fn let_in(&self, target: &str, end: u64, secure: bool) -> Response {
        let life = SESSION_LIFE.min(end.saturating_sub(self.now));
        let pass = self.key.write(Kind::Session, &self.site, self.now + life);
        let secure = if secure { "; Secure" } else { "" };
        let text =
            format!("{COOKIE_NAME}={pass}; Path=/; Max-Age={life}; HttpOnly; SameSite=Lax{secure}");
        let cookie =
            HeaderValue::try_from(text).expect("digits, dots and base64url are legal in a field");
        away(target).with(SET_COOKIE, cookie)
    }
}

/// To another place of the same host. What is no such place is the first page.
fn away(target: &str) -> Response {
    let target = Some(target).filter(|target| link::is_local(target));
    let location = target.and_then(|target| HeaderValue::try_from(target).ok());
    Response {
        status: StatusCode::SEE_OTHER,
        headers: vec![
            (LOCATION, location.unwrap_or(HeaderValue::from_static("/"))),
            (CACHE_CONTROL, NO_STORE),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (page::ROBOTS, page::NOINDEX),
        ],
        body: Some("".into()),
    }
}

/// Whether a pair of a `Cookie` field is a session's.
fn is_session(pair: &[u8]) -> bool {
    let pair = pair.trim_ascii();
    let rest = pair.strip_prefix(COOKIE_NAME.as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
}

/// Whether a cookie of this name is a session's, which no rule of a release is told of.
pub(crate) fn is_own_cookie(name: &str) -> bool {
    name == COOKIE_NAME
}

/// What a rule is told of a field: nothing of what lets in.
pub(crate) fn told<'a>(name: &HeaderName, value: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if *name == PASS_HEADER {
        return None;
    }
    if *name != COOKIE || !pairs(value).any(is_session) {
        return Some(Cow::Borrowed(value));
    }
    let kept = without_sessions(value);
    (!kept.is_empty()).then_some(Cow::Owned(kept))
}

fn pairs(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b';')
}

fn without_sessions(value: &[u8]) -> Vec<u8> {
    let kept: Vec<&[u8]> = pairs(value)
        .filter(|pair| !is_session(pair))
        .map(<[u8]>::trim_ascii)
        .collect();
    kept.join(&b"; "[..])
}

/// The fields of `Cookie` without sessions: what others set is for the application alone.
fn without_session(headers: &mut http::HeaderMap) {
    let held: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    let is_there = |value: &HeaderValue| pairs(value.as_bytes()).any(is_session);
    if !held.iter().any(is_there) {
        return;
    }
    headers.remove(COOKIE);
    for value in held {
        if let Ok(value) = HeaderValue::from_bytes(&without_sessions(value.as_bytes()))
            && !value.is_empty()
        {
            headers.append(COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests;
