//! Pure. What who is not let in gets: a form for browsers, a line for everybody else.

use std::fmt::Write as _;

use helix_routing::protection::Protection;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    WWW_AUTHENTICATE, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};

use super::{LOGIN_PATH, PASS_HEADER, link};
use crate::answer::{NO_STORE, RequestHead, Response};

pub(super) const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");
pub(super) const NOINDEX: HeaderValue = HeaderValue::from_static("noindex");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// The page loads nothing, is in nobody's frame, and sends its form nowhere else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);
/// Every 401 names a way to get in (RFC 9110 15.5.2). Browsers know none of this name, and so ask for nothing by themselves.
const SCHEME: HeaderValue = HeaderValue::from_static("Helix realm=\"protected\"");
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:24rem;padding:0 1rem;color:#222;background:#fff}\
input,button{font:inherit;padding:.4rem .6rem;width:100%;box-sizing:border-box;margin-top:.5rem}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#111}}";

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// They showed nothing, or nothing good.
    Nothing,
    /// It is not the password.
    Wrong,
    /// They tried too often; they may again after so many seconds.
    Limited(u64),
    /// Too many passwords are being checked.
    Busy,
    /// The form was not understood.
    Unreadable,
    /// This edge cannot check passes.
    NoKey,
}

impl Said {
    const fn status(self) -> StatusCode {
        match self {
            Self::Nothing | Self::Wrong => StatusCode::UNAUTHORIZED,
            Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::NoKey => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreadable => StatusCode::BAD_REQUEST,
        }
    }

    const fn line(self) -> &'static str {
        match self {
            Self::Nothing => "this site is protected",
            Self::Wrong => "that is not the password",
            Self::Limited(_) => "too many attempts; wait a minute",
            Self::Busy => "too many passwords are being checked; try again",
            Self::Unreadable => "the form was not understood",
            Self::NoKey => {
                "this site is protected, and this edge cannot check passes yet; try again"
            }
        }
    }

    const fn retry_after(self) -> Option<u64> {
        match self {
            Self::Limited(seconds) => Some(seconds),
            Self::Busy | Self::NoKey => Some(1),
            Self::Nothing | Self::Wrong | Self::Unreadable => None,
        }
    }
}

/// Whether whoever asks reads HTML.
pub(super) fn is_wanted(head: &RequestHead<'_>) -> bool {
    let mut accepted = head.fields.all(&ACCEPT);
    accepted.any(|value| memchr::memmem::find(value, b"text/html").is_some())
}

/// The answer to `head`, which is not let in.
pub(super) fn refused(head: &RequestHead<'_>, protection: &Protection, said: Said) -> Response {
    let to = link::without_pass(head.path, head.query);
    let to = if head.path == LOGIN_PATH { "/" } else { &to };
    told(is_wanted(head), protection, (said, to))
}

/// The same for who came by the form, and wants to go to `to`.
pub(super) fn told(html: bool, protection: &Protection, (said, to): (Said, &str)) -> Response {
    let mut response = if html {
        let body = page(said, protection.password.is_some(), to);
        Response {
            status: said.status(),
            headers: vec![
                (CONTENT_TYPE, HTML),
                (CACHE_CONTROL, NO_STORE),
                (CONTENT_SECURITY_POLICY, POLICY),
            ],
            body: Some(body.into()),
        }
    } else {
        let line = format!(
            "{}: open it by a link, or send a pass as {PASS_HEADER}\n",
            said.line()
        );
        Response::text(said.status(), line)
    };
    if said.status() == StatusCode::UNAUTHORIZED {
        response = response.with(WWW_AUTHENTICATE, SCHEME);
    }
    if let Some(seconds) = said.retry_after() {
        response = response.with(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
        .with(ROBOTS, NOINDEX)
        .with(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))
        .with(REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
}

fn page(said: Said, has_password: bool, to: &str) -> String {
    let to = if link::is_local(to) { to } else { "/" };
    let line = said.line();
    let way = if has_password {
        format!(
            "<form method=\"post\" action=\"{LOGIN_PATH}\"><input type=\"hidden\" name=\"to\" value=\"{}\">\
             <label>Password<input type=\"password\" name=\"password\" autocomplete=\"current-password\" required autofocus></label>\
             <button>Enter</button></form>",
            escaped(to)
        )
    } else {
        "<p>Ask whoever sent you here for a link.</p>".to_owned()
    };
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"robots\" content=\"noindex\"><title>Protected</title><style>{STYLE}</style>\
         <main><h1>Protected</h1><p role=\"status\">{line}</p>{way}</main></html>\n"
    )
}

/// As the value of an attribute.
fn escaped(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, char| {
            match char {
                '&' | '<' | '>' | '"' | '\'' => {
                    let _ = write!(out, "&#{};", u32::from(char));
                }
                _ => out.push(char),
            }
            out
        })
}
