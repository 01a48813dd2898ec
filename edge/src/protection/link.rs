//! Pure. The pass in a link, and what becomes of the URL that it is in.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;

use super::{PARAMETER, without_session};
use crate::exchange::Request;

/// Longest target that one is sent to: as long as a head may have.
const MAX_TARGET_BYTES: usize = 4096;

/// The pass in a query, if there is one. Of several the first counts.
pub(super) fn pass_of(query: &str) -> Option<&str> {
    query.split('&').find_map(value)
}

/// Path and query without any pass.
pub(super) fn without_pass(path: &str, query: Option<&str>) -> String {
    match query_without_pass(query) {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// A query without any pass; none where nothing else is in it. Rules write queries into targets and locations: what lets in must be in
/// neither.
pub(crate) fn query_without_pass(query: Option<&str>) -> Option<Cow<'_, str>> {
    let query = query?;
    if pass_of(query).is_none() {
        return Some(Cow::Borrowed(query));
    }
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| value(pair).is_none())
        .collect();
    (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
}

fn value(pair: &str) -> Option<&str> {
    pair.strip_prefix(PARAMETER)?.strip_prefix('=')
}

/// Whether browsers take `target` for a place of the same host: one slash at its beginning, and nothing that they read as
/// another or leave out.
pub(super) fn is_local(target: &str) -> bool {
    let mut bytes = target.bytes();
    bytes.next() == Some(b'/')
        && target.len() <= MAX_TARGET_BYTES
        && !matches!(bytes.next(), Some(b'/' | b'\\'))
        && target
            .bytes()
            .all(|byte| (b'!'..=b'~').contains(&byte) && byte != b'\\')
}

/// A target as it may be logged: without passes.
pub(crate) fn logged(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else {
        return Cow::Borrowed(target);
    };
    if pass_of(query).is_none() {
        return Cow::Borrowed(target);
    }
    let pairs: Vec<Cow<'_, str>> = query
        .split('&')
        .map(|pair| match value(pair) {
            Some(_) => Cow::Owned(format!("{PARAMETER}=-")),
            None => Cow::Borrowed(pair),
        })
        .collect();
    Cow::Owned(format!("{path}?{}", pairs.join("&")))
}

/// The request as what is behind a protected site may see it: without passes.
pub(super) fn stripped(request: &Request) -> Request {
    let mut head = request.head.clone();
    without_session(&mut head.headers);
    if head.uri.query().and_then(pass_of).is_some() {
        let target = without_pass(head.uri.path(), head.uri.query());
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.path_and_query = PathAndQuery::try_from(target).ok();
        head.uri = Uri::from_parts(parts).unwrap_or_default();
    }
    Request {
        head,
        peer: request.peer,
        secure: request.secure,
    }
}
