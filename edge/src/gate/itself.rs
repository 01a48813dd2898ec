//! Asks a release what a visitor would get of it, before there is any: by the code that answers visitors.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use helix_routing::gate::{HttpAsk, MAX_BODY_BYTES};
use helix_routing::host::{Host, primary};
use helix_routing::routes::Span;
use http::header::{HOST, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use super::Subject;
use super::drive::{Probed, within};
use super::judge::Judge;
use crate::answer::{Answer, Pinned, answer_pinned};
use crate::edge::Edge;
use crate::exchange::{Broken, Ended, Exchange, Protocol, Request, ResponseHead, carry, head_of};
use crate::forward;
use crate::table::{HostRule, Serving};

/// One request that nobody sent.
pub(super) struct Itself<'a> {
    edge: &'a Edge,
    subject: &'a Subject,
    ask: &'a HttpAsk,
    host: Option<Host>,
    secure: bool,
}

impl<'a> Itself<'a> {
    pub(super) fn new(edge: &'a Edge, subject: &'a Subject, ask: &'a HttpAsk) -> Self {
        let own = || primary(&subject.site, edge.table.base()).ok();
        Self {
            edge,
            subject,
            ask,
            host: ask.host.clone().or_else(own),
            // As most visitors come, where they can.
            secure: edge.table.secure_port().is_some(),
        }
    }

    pub(super) async fn ask(&self, judge: &Judge<'_>, limit: Span) -> Probed {
        let Some(host) = &self.host else {
            return Probed::impossible(
                &self.ask.path,
                "the site has no host under the base domain",
            );
        };
        let scheme = if self.secure { "https" } else { "http" };
        let url = format!("{scheme}://{host}{}", self.ask.path);
        let Some(request) = self.request(host) else {
            return Probed::impossible(url, "is no URL that could be asked for");
        };
        within(limit, &url, self.answered(host, &request, &url, judge)).await
    }

    fn request(&self, host: &Host) -> Option<Request> {
        let mut head = http::Request::new(()).into_parts().0;
        head.method = Method::GET;
        head.uri = self.ask.path.parse::<Uri>().ok()?;
        let fields = &mut head.headers;
        fields.insert(USER_AGENT, HeaderValue::from_static("helix-gate"));
        for (name, value) in &self.ask.headers {
            let name = HeaderName::try_from(name.as_str()).ok()?;
            fields.insert(name, HeaderValue::try_from(value.as_str()).ok()?);
        }
        fields.insert(HOST, HeaderValue::try_from(host.as_str()).ok()?);
        Some(Request {
            head,
            peer: SocketAddr::from(([127, 0, 0, 1], 0)),
            secure: self.secure,
        })
    }

    async fn answered(
        &self,
        host: &Host,
        request: &Request,
        url: &str,
        judge: &Judge<'_>,
    ) -> Probed {
        let release = &self.subject.release;
        let pinned = Pinned {
            site: Arc::new(self.subject.site.clone()),
            rule: HostRule::Exact(host.clone()),
            serving: Arc::new(Serving {
                live: Some(Arc::clone(release)),
                ..Serving::default()
            }),
            release: Some(Arc::clone(release)),
            chosen: None,
        };
        let answered = answer_pinned(&self.edge.table, pinned, &head_of(request));
        let (edge, pinned) = (self.edge, answered.pinned.as_ref());
        let mut heard = Heard::default();
        let ended = match answered.answer {
            // Past what is kept: the server is to be asked, and nothing is to be kept of it.
            Answer::Forward(target) => {
                let sending = forward::uncached(edge, request, pinned, &target, &mut heard);
                Box::pin(sending).await
            }
            answer => Box::pin(carry(edge, request, pinned, answer, &mut heard)).await,
        };
        heard.judged(url, judge, &ended)
    }
}

/// The client's end of the exchange: it keeps what it hears, up to a limit.
#[derive(Debug, Default)]
struct Heard {
    status: Option<StatusCode>,
    body: Vec<u8>,
    /// There was more than is looked at.
    is_full: bool,
}

impl Heard {
    fn judged(&self, url: &str, judge: &Judge<'_>, ended: &Ended) -> Probed {
        let broken = ended.error.as_ref().filter(|_| !self.is_full);
        match (self.status, broken) {
            (Some(status), None) => {
                judge.judge(url, status.as_u16(), &self.body, ended.cause.as_deref())
            }
            (status, Some(broken)) => {
                let probed = Probed::bad(url, &format!("broke off: {broken}"));
                match status {
                    Some(status) => probed.with(status.as_u16(), Some(&self.body)),
                    None => probed,
                }
            }
            (None, None) => Probed::bad(url, "gave no response"),
        }
    }
}

impl Exchange for Heard {
    fn protocol(&self) -> Protocol {
        Protocol::Http1
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Broken> {
        Ok(None)
    }

    fn is_read(&self) -> bool {
        true
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        Ok(None)
    }

    async fn interim(&mut self, _: ResponseHead) -> Result<(), Broken> {
        Ok(())
    }

    async fn start(&mut self, head: ResponseHead, _: bool) -> Result<(), Broken> {
        self.status = Some(head.status);
        Ok(())
    }

    async fn send(&mut self, part: Bytes, _: bool) -> Result<(), Broken> {
        let room = MAX_BODY_BYTES - self.body.len();
        self.body.extend_from_slice(&part[..part.len().min(room)]);
        if part.len() > room {
            self.is_full = true;
            return Err(Broken::Client("has heard enough"));
        }
        Ok(())
    }

    async fn end(&mut self, _: Option<HeaderMap>) -> Result<(), Broken> {
        Ok(())
    }

    fn abort(&mut self) {}
}
