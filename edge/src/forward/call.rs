//! A request as it is sent on: target and fields are made here, once, for every lane and every try.

use std::borrow::Cow;
use std::str::FromStr;

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};

use super::group::Group;
use super::headers::{Client, Loops, ToUpstream, to_upstream};
use crate::exchange::{Protocol, Request, head_of};

/// Borrows what the client sent.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) request: &'a Request,
    pub(crate) fields: ToUpstream<'a>,
    pub(crate) path: Cow<'a, str>,
    query: Option<&'a str>,
}

/// What a server is asked for.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// Starts with a slash.
    pub(super) path: Cow<'a, str>,
    /// Without the question mark.
    pub(super) query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Path and query, as a route says.
    pub(super) fn of(there: &'a str) -> Self {
        let (path, query) = match there.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (there, None),
        };
        let path = Cow::Borrowed(path);
        Self { path, query }
    }
}

impl<'a> Call<'a> {
    /// # Errors
    /// When the request has been here before.
    pub(super) fn new(
        request: &'a Request,
        protocol: Protocol,
        there: Target<'a>,
        group: &'a Group,
    ) -> Result<Self, Loops> {
        let client = Client {
            peer: request.peer,
            secure: request.secure,
            protocol,
            authority: head_of(request).authority,
        };
        let fresh = (rand::random(), rand::random());
        let fields = to_upstream(&request.head.headers, &client, group.host(), fresh)?;
        Ok(Self {
            request,
            fields,
            path: there.path,
            query: there.query,
        })
    }

    pub(crate) const fn query(&self) -> Option<&str> {
        self.query
    }

    /// The same as a request of its own.
    pub(crate) fn to_request(&self) -> Request {
        let mut head = http::Request::new(()).into_parts().0;
        head.method = self.request.head.method.clone();
        head.uri = self.uri();
        for (name, value) in self.fields.iter() {
            // They are legal: a client's were parsed as such.
            if let Ok(value) = HeaderValue::from_bytes(value) {
                head.headers.append(name.clone(), value);
            }
        }
        Request {
            head,
            peer: self.request.peer,
            secure: self.request.secure,
        }
    }

    /// Path and query in origin form.
    fn uri(&self) -> Uri {
        let whole = match self.query() {
            None => Cow::Borrowed(&*self.path),
            Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
        };
        // A part of a legal path that starts with a slash is one.
        PathAndQuery::from_str(&whole).map_or_else(|_| Uri::default(), Uri::from)
    }
}
