//! What a protected site answers, carried out: refusals as they are, passwords checked.
//!
//! Invariant: no password is looked at before its address has an attempt left, and none is checked on a thread that serves.

use std::time::{Duration, Instant};

use helix_routing::protection::Protection;
use helix_service::password;
use http::StatusCode;
use tokio::time::timeout;

use super::page::{Said, told};
use super::{Door, Guarded};
use crate::answer::{Answer, Pinned, Response};
use crate::edge::Edge;
use crate::exchange::{Broken, Ended, Exchange, Request, carry};

/// Most bytes of a form: a password, and where to go.
const MAX_FORM_BYTES: usize = 8 * 1024;
/// Longest password that is checked, in bytes.
const MAX_PASSWORD_BYTES: usize = 256;
/// How long one that is not yet checked waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(2);

/// How it came out, as in metrics.
const REFUSED: &str = "refused";
const LINK: &str = "link";
const PASSWORD: &str = "password";
const WRONG: &str = "wrong";
const LIMITED: &str = "limited";
const OTHER: &str = "other";

/// Answers who is not let in yet.
pub(crate) async fn respond<E: Exchange>(
    edge: &Edge,
    request: &Request,
    pinned: Option<&Pinned>,
    guarded: Guarded,
    exchange: &mut E,
) -> Ended {
    let (outcome, response) = match guarded {
        Guarded::Refuse(response) => (REFUSED, response),
        Guarded::Enter(response) => (LINK, response),
        Guarded::Login { html } => match login(edge, request, pinned, html, exchange).await {
            Ok(answered) => answered,
            Err(error) => {
                let error = Some(error);
                return Ended {
                    error,
                    ..Ended::default()
                };
            }
        },
    };
    edge.metrics.protected.with_label_values(&[outcome]).inc();
    let status = response.status;
    let mut ended = carry(edge, request, pinned, Answer::Respond(response), exchange).await;
    if status != StatusCode::SEE_OTHER {
        ended.cause = Some(format!("protected: {outcome}"));
    }
    ended
}

/// Checks the password in the body.
async fn login<E: Exchange>(
    edge: &Edge,
    request: &Request,
    pinned: Option<&Pinned>,
    html: bool,
    exchange: &mut E,
) -> Result<(&'static str, Response), Broken> {
    let protection = pinned.and_then(|pinned| pinned.serving.protection.as_deref());
    let (Some(pinned), Some(protection)) = (pinned, protection) else {
        let response = Response::text(StatusCode::NOT_FOUND, "nothing is protected here\n");
        return Ok((OTHER, response));
    };
    let Some(form) = body(exchange).await? else {
        let response = Response::text(StatusCode::PAYLOAD_TOO_LARGE, "the form is too large\n");
        return Ok((OTHER, response));
    };
    let form = Form::read(&form);
    let site = pinned.site.to_string();
    let (attempts, from) = (edge.table.attempts(), request.peer.ip());
    let refused = |said| told(html, protection, (said, &form.to));
    if let Err(wait) = attempts.take(&site, from, Instant::now()) {
        return Ok((LIMITED, refused(Said::Limited(wait.as_secs() + 1))));
    }
    let Some(door) = Door::new(edge.table.visitors(), pinned, protection) else {
        return Ok((OTHER, refused(Said::NoKey)));
    };
    let Some(given) = form
        .password
        .filter(|given| given.len() <= MAX_PASSWORD_BYTES)
    else {
        return Ok((OTHER, refused(Said::Unreadable)));
    };
    match is_right(edge, protection, given).await {
        None => Ok((OTHER, refused(Said::Busy))),
        Some(false) => Ok((WRONG, refused(Said::Wrong))),
        Some(true) => {
            attempts.give_back(&site, from);
            let response = door.let_in(&form.to, u64::MAX, request.secure);
            Ok((PASSWORD, response))
        }
    }
}

/// Whether it is the password; none when its turn does not come.
async fn is_right(edge: &Edge, protection: &Protection, given: Vec<u8>) -> Option<bool> {
    let Some(kept) = protection.password.clone() else {
        return Some(false);
    };
    let turn = timeout(TURN_WAIT, edge.table.attempts().checks.acquire()).await;
    let _turn = turn.ok()?.ok()?;
    let checked = tokio::task::spawn_blocking(move || password::is(&kept, &given));
    checked.await.ok()
}

/// The body, unless it is too large.
async fn body<E: Exchange>(exchange: &mut E) -> Result<Option<Vec<u8>>, Broken> {
    let mut body = Vec::new();
    while let Some(part) = exchange.read().await? {
        if body.len() + part.len() > MAX_FORM_BYTES {
            return Ok(None);
        }
        body.extend_from_slice(&part);
    }
    Ok(Some(body))
}

/// What was typed, and where one wanted to go.
struct Form {
    password: Option<Vec<u8>>,
    to: String,
}

impl Form {
    /// As `application/x-www-form-urlencoded` has it (URL, 5.1). Of several fields of one name the first counts.
    fn read(bytes: &[u8]) -> Self {
        let value = |name: &[u8]| {
            let mut pairs = bytes.split(|byte| *byte == b'&');
            pairs.find_map(|pair| Some(decoded(pair.strip_prefix(name)?.strip_prefix(b"=")?)))
        };
        let to = value(b"to").and_then(|to| String::from_utf8(to).ok());
        Self {
            password: value(b"password"),
            to: to.unwrap_or_else(|| "/".to_owned()),
        }
    }
}

/// Undoes the escapes of a form. What is no escape stays as it is.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.extend(u8::try_from(high * 16 + low));
                at += 3;
                continue;
            }
            (b'+', _, _) => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        let form = Form::read(b"to=%2Fa%3Fb%3Dc&password=p%C3%A4ss+w%26rd%2B&password=second");
        assert_eq!(form.to, "/a?b=c");
        assert_eq!(form.password.unwrap(), "p\u{e4}ss w&rd+".as_bytes());
        for (text, to, password) in [
            (&b""[..], "/", None),
            (b"password", "/", None),
            (b"to=%ff&password=", "/", Some(&b""[..])),
            (b"password=%", "/", Some(b"%")),
            (b"password=%4", "/", Some(b"%4")),
            (b"password=%zz%+", "/", Some(b"%zz% ")),
            (b"&&=&password=a=b", "/", Some(b"a=b")),
            (b"xpassword=a&to=x", "x", None),
        ] {
            let form = Form::read(text);
            assert_eq!((form.to.as_str(), form.password.as_deref()), (to, password));
        }
    }
}
