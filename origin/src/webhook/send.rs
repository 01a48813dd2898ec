//! One attempt of one delivery: where it may go, and what came of it.
//!
//! Invariant: the address that is connected to is one that was looked up and permitted a moment before, and no other: the name is not
//! looked up again, no redirect is followed, and no proxy of the environment is asked.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use helix_routing::time::Timestamp;
use helix_service::reachable::Reachable;
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use url::{Host, Url};

use super::secret::Secret;

/// How long a name may take to be looked up.
const LOOKUP_WAIT: Duration = Duration::from_secs(5);
/// How long a server may take to take a connection, and for all of it.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
const ATTEMPT_WAIT: Duration = Duration::from_secs(15);
/// Most addresses of one name.
const MAX_ADDRESSES: usize = 8;
/// Longest URL.
const MAX_URL: usize = 2000;
/// How much of a response is looked at, in bytes, and shown, in characters.
const MAX_RESPONSE: usize = 16 * 1024;
const MAX_SHOWN: usize = 200;
/// Where no web server is, and what speaks lines there could take a request for some: mail, shells, databases, NATS.
const REFUSED_PORTS: [u16; 14] = [
    21, 22, 23, 25, 53, 110, 143, 465, 587, 993, 4222, 5432, 6222, 6379,
];

/// Where deliveries may go.
#[derive(Clone, Debug, Default)]
pub struct Permitted {
    /// To which addresses.
    pub reachable: Reachable,
    /// Also without TLS.
    pub plain_http: bool,
}

/// A URL is no webhook's.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// Not one at all.
    #[error(
        "a webhook's URL is https://host/path, without a user, and has at most {MAX_URL} characters"
    )]
    Illegal,
    /// Without TLS.
    #[error(
        "a webhook's URL has to be https: `[webhooks] plain_http` of origin's config permits http"
    )]
    Plain,
    /// A port on which no web server is.
    #[error("a webhook cannot be at port {0}")]
    Port(u16),
    /// An address that origin does not connect to.
    #[error("origin does not connect to {0}: `[webhooks] allow` of its config can permit it")]
    Address(IpAddr),
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Status of the response, if there was one.
    pub status: Option<u16>,
    /// Why it failed; none: it was delivered.
    pub error: Option<String>,
    /// When the server wants to be asked again.
    pub retry_after: Option<Duration>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What is sent.
#[derive(Debug)]
pub struct Message<'a> {
    /// Names the message: the same with every attempt.
    pub id: &'a str,
    /// Now.
    pub at: Timestamp,
    /// JSON.
    pub body: String,
}

/// A URL that deliveries may go to, as far as can be said without a look-up.
///
/// # Errors
/// As [`UrlError`] says.
pub fn check(text: &str, permitted: &Permitted) -> Result<Url, UrlError> {
    let url = Url::parse(text).map_err(|_| UrlError::Illegal)?;
    let is_web = matches!(url.scheme(), "http" | "https");
    let has_user = !url.username().is_empty() || url.password().is_some();
    if text.len() > MAX_URL || !is_web || has_user || url.fragment().is_some() || !url.has_host() {
        return Err(UrlError::Illegal);
    }
    if url.scheme() == "http" && !permitted.plain_http {
        return Err(UrlError::Plain);
    }
    let port = url.port_or_known_default().unwrap_or(443);
    if REFUSED_PORTS.contains(&port) {
        return Err(UrlError::Port(port));
    }
    if let Some(address) = literal(&url) {
        check_address(SocketAddr::new(address, port), permitted)?;
    }
    Ok(url)
}

fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

fn check_address(address: SocketAddr, permitted: &Permitted) -> Result<(), UrlError> {
    let is_own = permitted.reachable.is_own(address, is_local);
    if is_own || !permitted.reachable.permits(address.ip()) {
        return Err(UrlError::Address(address.ip()));
    }
    Ok(())
}

/// Whether `ip` is one of this machine's: nobody can bind another's. Nothing is sent.
fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Sends a message once.
pub async fn send(
    url: &str,
    permitted: &Permitted,
    secret: &Secret,
    message: Message<'_>,
) -> Attempt {
    let begin = Instant::now();
    let tried = tokio::time::timeout(ATTEMPT_WAIT, attempt(url, permitted, secret, message)).await;
    let (status, error, retry_after) = match tried {
        Ok(Ok((status, error, retry_after))) => (Some(status.as_u16()), error, retry_after),
        Ok(Err(error)) => (None, Some(error), None),
        Err(_) => {
            let error = format!("no answer within {} s", ATTEMPT_WAIT.as_secs());
            (None, Some(error), None)
        }
    };
    Attempt {
        status,
        error,
        retry_after,
        elapsed: begin.elapsed(),
    }
}

type Answered = (StatusCode, Option<String>, Option<Duration>);

async fn attempt(
    url: &str,
    permitted: &Permitted,
    secret: &Secret,
    message: Message<'_>,
) -> Result<Answered, String> {
    let url = check(url, permitted).map_err(|error| error.to_string())?;
    let client = client(&url, permitted).await?;
    let seconds = message.at.as_millis() / 1000;
    let signature = secret.sign(message.id, seconds, &message.body);
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .header("webhook-id", message.id)
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", signature)
        .body(message.body);
    // The URL may hold a secret of the receiver's.
    let response = request
        .send()
        .await
        .map_err(|error| causes(&error.without_url()))?;
    let status = response.status();
    if status.is_success() {
        return Ok((status, None, None));
    }
    let retry_after = retry_after(&response);
    let shown = shown(response).await;
    let error = if shown.is_empty() {
        format!("answered {status}")
    } else {
        format!("answered {status}: {shown}")
    };
    Ok((status, Some(error), retry_after))
}

/// A client that connects to what the URL's host means now, if all of that is permitted.
///
/// # Errors
/// When it cannot be looked up or is not permitted, as a person is told.
pub(crate) async fn client(url: &Url, permitted: &Permitted) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_WAIT)
        .user_agent(concat!("HelixStack/", env!("CARGO_PKG_VERSION")));
    if let Some((name, found)) = look_up(url, permitted).await? {
        builder = builder.resolve_to_addrs(&name, &found);
    }
    builder.build().map_err(|error| causes(&error))
}

/// What the name of the URL's host means now, if it has one and all of that is permitted.
///
/// # Errors
/// When it cannot be looked up or is not permitted, as a person is told.
pub(crate) async fn look_up(
    url: &Url,
    permitted: &Permitted,
) -> Result<Option<(String, Vec<SocketAddr>)>, String> {
    let Some(Host::Domain(name)) = url.host() else {
        return Ok(None);
    };
    let port = url.port_or_known_default().unwrap_or(443);
    let looked_up = tokio::net::lookup_host((name, port));
    let found = match tokio::time::timeout(LOOKUP_WAIT, looked_up).await {
        Ok(Ok(found)) => found.take(MAX_ADDRESSES).collect::<Vec<_>>(),
        Ok(Err(error)) => return Err(format!("look up {name}: {error}")),
        Err(_) => return Err(format!("look up {name}: no answer")),
    };
    for address in &found {
        check_address(*address, permitted).map_err(|error| error.to_string())?;
    }
    Ok(Some((name.to_owned(), found)))
}

fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// The start of a body, without what could drive a terminal.
pub(crate) async fn shown(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= MAX_RESPONSE {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body);
    let plain = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_SHOWN);
    plain.collect::<String>().trim().to_owned()
}

pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let text = helix_service::error::chain(error);
    text.chars().take(MAX_SHOWN * 2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(allow: &[&str]) -> Permitted {
        let mut permitted = Permitted {
            plain_http: true,
            ..Permitted::default()
        };
        permitted.reachable.allow = allow.iter().map(|range| range.parse().unwrap()).collect();
        permitted
    }

    #[test]
    fn urls_that_lead_inside_are_refused_however_they_are_written() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://017700000001/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://169.254.169.254/latest/meta-data",
            "http://10.0.0.1/",
            "http://192.168.1.1/",
            "http://172.16.0.1/",
            "http://100.64.0.1/",
            "http://0.0.0.0/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://1.1.1.1:22/",
            "http://1.1.1.1:4222/",
            "ftp://1.1.1.1/",
            "unix:/run/x",
            "http://me@1.1.1.1/",
            "/x",
            "",
        ] {
            assert!(check(url, &permitted(&[])).is_err(), "{url}");
        }
        for url in [
            "http://1.1.1.1/x?y",
            "https://hooks.example/x",
            "http://1.1.1.1:8080/",
        ] {
            assert!(check(url, &permitted(&[])).is_ok(), "{url}");
        }
        assert!(check("http://127.0.0.1:1/", &permitted(&["127.0.0.0/8"])).is_ok());
        let strict = Permitted::default();
        assert!(matches!(
            check("http://1.1.1.1/", &strict),
            Err(UrlError::Plain)
        ));
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_found_out_when_it_is_looked_up() {
        let url = Url::parse("http://localhost:1/").unwrap();
        let refused = client(&url, &permitted(&[])).await.unwrap_err();
        assert!(refused.contains("does not connect to"), "{refused}");
        let allowed = permitted(&["127.0.0.0/8", "::1/128"]);
        assert!(client(&url, &allowed).await.is_ok());
        let mut own = allowed.clone();
        own.reachable.own = vec!["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()];
        assert!(client(&url, &own).await.is_err(), "origin itself");
    }
}
