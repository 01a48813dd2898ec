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
}

impl<'a> Call<'a> {
    /// # Errors
    /// When the request has been here before.
    pub(super) fn new(
        request: &'a Request,
        protocol: Protocol,
        path: Cow<'a, str>,
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
            path,
        })
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.request.head.uri.query()
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
