//! Whether a response may be stored, how long it is fresh, and whether it may be used for a request.
//!
//! Pure: RFC 9111 3 and 4 and RFC 5861 for a shared cache, with the time passed in as seconds since 1970.
//! It does not look at `Vary` (that is `vary`) and holds nothing.
//!
//! Stricter than the RFC where a shared cache would otherwise hand one person's response to another: a
//! response with `Set-Cookie` is stored only if the origin speaks of shared caches (`public`, `s-maxage` or
//! a targeted field), and no lifetime is guessed for the response to a request with cookies.

use http::header::{
    AGE, AUTHORIZATION, COOKIE, DATE, ETAG, EXPIRES, LAST_MODIFIED, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::directives::{self, RequestDirectives, ResponseDirectives, delta_seconds};

/// A guessed lifetime is this part of the time since the last change (RFC 9111 4.2.2 suggests a tenth).
const HEURISTIC_PART: u64 = 10;

/// No guess is longer, in seconds: a day, after which nobody remembers why a page is old.
const HEURISTIC_MOST: u64 = 24 * 60 * 60;

/// How long, in seconds, a stale response is used when no response comes at all, if nothing forbids it
/// (RFC 9111 4.2.4 allows that to a cache that is disconnected). Long enough for an origin to restart.
pub const DISCONNECTED: u64 = 60;

/// Statuses whose lifetime may be guessed (RFC 9110 15.1), without 206: parts are not stored.
const HEURISTIC: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

/// Statuses whose meaning for caches is known here, beyond those.
const UNDERSTOOD: [u16; 17] = [
    201, 202, 302, 303, 307, 400, 401, 403, 406, 409, 421, 429, 451, 500, 502, 503, 504,
];

/// What decides how a stored response may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// How long it is fresh, in seconds.
    pub lifetime: u64,
    /// How old it was when it came (RFC 9111 4.2.3).
    pub initial_age: u64,
    /// When it came.
    pub received: u64,
    /// It is asked about before each use.
    pub no_cache: bool,
    /// It is never used stale, whoever would allow it.
    pub must_revalidate: bool,
    /// It is not used stale unless the response itself allows it: what `s-maxage` implies.
    pub shared_only_fresh: bool,
    /// See [`ResponseDirectives::stale_while_revalidate`].
    pub stale_while_revalidate: u64,
    /// See [`ResponseDirectives::stale_if_error`].
    pub stale_if_error: u64,
    /// It may answer requests with `Authorization` (RFC 9111 3.5).
    pub authorized: bool,
}

/// Why a response is not stored, for the log and for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstorable {
    /// Only GET is stored.
    Method,
    /// Its status is not final, not whole, or unknown to us where that matters.
    Status,
    /// It, or the request, says so.
    NoStore,
    /// It is for one person.
    Private,
    /// The request was authorised, and nothing says that others may have the response.
    Authorization,
    /// It sets a cookie, and the origin does not speak of shared caches.
    SetCookie,
    /// `Vary: *`.
    VaryAny,
    /// Nothing says how long it is fresh, nor could it be asked about.
    Useless,
}

/// Whether the response to `request` may be stored, and how it may then be used.
///
/// `asked` and `now` are when the request was sent and its response came.
///
/// # Errors
/// Why it may not.
pub fn storable(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    asked: u64,
    now: u64,
) -> Result<(Freshness, Vec<HeaderName>), Unstorable> {
    let said = directives::of_response(response);
    forbidden(method, request, status, response, &said)?;
    let known = explicit_lifetime(response, &said, now);
    let guessable = said.public || HEURISTIC.contains(&status.as_u16());
    let guess = if guessable && !request.contains_key(COOKIE) {
        heuristic_lifetime(response, now)
    } else {
        None
    };
    let lifetime = known.or(guess);
    let validator = response.contains_key(ETAG) || response.contains_key(LAST_MODIFIED);
    let explicit = known.is_some() || said.public;
    let stale = said.stale_while_revalidate.unwrap_or(0) + said.stale_if_error.unwrap_or(0);
    let useful = lifetime.is_some_and(|lifetime| lifetime > 0) || validator || stale > 0;
    if !useful || !(explicit || HEURISTIC.contains(&status.as_u16())) {
        return Err(Unstorable::Useless);
    }
    let freshness = Freshness {
        lifetime: lifetime.unwrap_or(0),
        initial_age: initial_age(response, asked, now),
        received: now,
        no_cache: said.no_cache,
        must_revalidate: said.must_revalidate || said.proxy_revalidate,
        shared_only_fresh: said.s_maxage.is_some(),
        stale_while_revalidate: said.stale_while_revalidate.unwrap_or(0),
        stale_if_error: said.stale_if_error.unwrap_or(0),
        authorized: open_to_authorized(&said),
    };
    Ok((freshness, said.withheld))
}

fn forbidden(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    said: &ResponseDirectives,
) -> Result<(), Unstorable> {
    let understood = HEURISTIC.contains(&status.as_u16()) || UNDERSTOOD.contains(&status.as_u16());
    let part = matches!(status.as_u16(), 206 | 304);
    let for_shared = said.public || said.s_maxage.is_some() || said.targeted;
    let no_store = said.no_store && !(said.must_understand && understood);
    let vary_any = directives::tokens(response, &VARY).any(|name| name == "*");
    let checks = [
        (method != Method::GET, Unstorable::Method),
        (
            status.is_informational() || part || (said.must_understand && !understood),
            Unstorable::Status,
        ),
        (
            no_store || directives::of_request(request).no_store,
            Unstorable::NoStore,
        ),
        (said.private, Unstorable::Private),
        (
            request.contains_key(AUTHORIZATION) && !open_to_authorized(said),
            Unstorable::Authorization,
        ),
        (
            response.contains_key(SET_COOKIE) && !for_shared,
            Unstorable::SetCookie,
        ),
        (vary_any, Unstorable::VaryAny),
    ];
    match checks.into_iter().find(|(holds, _)| *holds) {
        Some((_, why)) => Err(why),
        None => Ok(()),
    }
}

/// Whether an authorised person's response may answer others, and the other way round (RFC 9111 3.5).
const fn open_to_authorized(said: &ResponseDirectives) -> bool {
    said.public || said.must_revalidate || said.s_maxage.is_some()
}

/// RFC 9111 4.2.1.
fn explicit_lifetime(response: &HeaderMap, said: &ResponseDirectives, now: u64) -> Option<u64> {
    if let Some(lifetime) = said.s_maxage.or(said.max_age) {
        return Some(lifetime);
    }
    if said.targeted {
        return None;
    }
    let expires = response.get(EXPIRES)?;
    // What is no date lies in the past (RFC 9111 5.3).
    let expires = date(expires).unwrap_or(0);
    Some(expires.saturating_sub(date_of(response, now)))
}

/// RFC 9111 4.2.2.
fn heuristic_lifetime(response: &HeaderMap, now: u64) -> Option<u64> {
    let modified = date(response.get(LAST_MODIFIED)?)?;
    let unchanged = date_of(response, now).saturating_sub(modified);
    Some((unchanged / HEURISTIC_PART).min(HEURISTIC_MOST))
}

/// RFC 9111 4.2.3. An `Age` that is not one number counts as too old for any use.
fn initial_age(response: &HeaderMap, asked: u64, now: u64) -> u64 {
    let mut lines = response.get_all(AGE).iter();
    let age = match (lines.next(), lines.next()) {
        (None, _) => 0,
        (Some(age), None) => age
            .to_str()
            .ok()
            .and_then(delta_seconds)
            .unwrap_or(u64::MAX),
        (Some(_), Some(_)) => u64::MAX,
    };
    let apparent = now.saturating_sub(date_of(response, now));
    let corrected = age.saturating_add(now.saturating_sub(asked));
    apparent.max(corrected)
}

fn date_of(response: &HeaderMap, now: u64) -> u64 {
    response.get(DATE).and_then(date).unwrap_or(now)
}

/// A date in one of the three forms (RFC 9110 5.6.7), in seconds since 1970.
#[must_use]
pub fn date(value: &http::HeaderValue) -> Option<u64> {
    let date = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
    date.duration_since(std::time::UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

/// How a stored response is used for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// As it is.
    Fresh,
    /// As it is, though it is stale: the client accepts that.
    Stale,
    /// As it is, though it is stale, while it is asked about.
    WhileRevalidating,
    /// Only after asking.
    Validate,
}

impl Freshness {
    /// Its age in seconds.
    #[must_use]
    pub const fn age(&self, now: u64) -> u64 {
        self.initial_age
            .saturating_add(now.saturating_sub(self.received))
    }

    /// For how many more seconds it is fresh.
    #[must_use]
    pub const fn left(&self, now: u64) -> u64 {
        self.lifetime.saturating_sub(self.age(now))
    }

    /// For how many seconds it has been stale; none while it is fresh.
    #[must_use]
    pub const fn staleness(&self, now: u64) -> Option<u64> {
        let age = self.age(now);
        if age < self.lifetime {
            None
        } else {
            Some(age - self.lifetime)
        }
    }

    /// How it may be used for a request that says `request`; `authorized` if that has `Authorization`.
    #[must_use]
    pub fn usable(&self, request: &RequestDirectives, authorized: bool, now: u64) -> Use {
        let too_old = request.max_age.is_some_and(|most| self.age(now) > most);
        if self.no_cache || request.no_cache || request.no_store || (authorized && !self.authorized)
        {
            return Use::Validate;
        }
        let Some(staleness) = self.staleness(now) else {
            let soon_stale = request
                .min_fresh
                .is_some_and(|least| self.left(now) < least);
            return if too_old || soon_stale {
                Use::Validate
            } else {
                Use::Fresh
            };
        };
        if self.must_revalidate || request.min_fresh.is_some() {
            return Use::Validate;
        }
        let accepted = request.max_stale.is_some_and(|most| staleness <= most);
        if accepted && !self.shared_only_fresh && !too_old {
            return Use::Stale;
        }
        if staleness < self.stale_while_revalidate && request.max_age.is_none() {
            return Use::WhileRevalidating;
        }
        Use::Validate
    }

    /// Whether it may be used stale because asking failed; `answered` if the origin answered with an error.
    #[must_use]
    pub fn usable_after_failure(
        &self,
        request: &RequestDirectives,
        answered: bool,
        now: u64,
    ) -> bool {
        if self.must_revalidate || self.no_cache || request.no_cache || request.no_store {
            return false;
        }
        let Some(staleness) = self.staleness(now) else {
            return true;
        };
        let asked_for = request.stale_if_error.filter(|_| !self.shared_only_fresh);
        staleness < self.stale_if_error
            || asked_for.is_some_and(|most| staleness < most)
            || (!answered && !self.shared_only_fresh && staleness < DISCONNECTED)
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
