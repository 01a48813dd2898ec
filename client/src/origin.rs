//! Origin's HTTP API as calls that return the shapes of `helix_routing::api`.
//!
//! Every answer is bounded, every wait ends. Here nothing is retried: [`retry`](crate::retry) does that for calls
//! that may be repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use helix_routing::api::Problem;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

/// A host that does not answer by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One call: making a release of 100,000 files and sending 8 MiB over a slow line fit in.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// The largest answer that is read: 100,000 releases or missing contents fit in.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// How much of an upload has arrived.
pub const UPLOAD_OFFSET: &str = "upload-offset";
/// Makes a repeated call the same call.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Where origin is, and the token to show it.
#[derive(Clone)]
pub struct Access {
    /// Base of the API.
    pub api: Url,
    /// The same of other origins of the fleet: asked when that one does not answer.
    pub others: Vec<Url>,
    /// The secret.
    pub token: String,
    /// Where the address was found, for errors.
    pub found: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Access({}, from {})", self.api, self.found)
    }
}

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// Origin refused, and says why.
    #[error("{}", .0.title)]
    Problem(Box<Problem>),
    /// No answer, or only a part of one.
    #[error("reach origin at {api} (address from {found})")]
    Unreachable {
        api: Url,
        found: String,
        #[source]
        source: reqwest::Error,
    },
    /// Something answered that is no origin, or is of another version.
    #[error("origin at {api} answered {status} to {what} with something that is not of its API")]
    Unexpected {
        api: Url,
        what: String,
        status: StatusCode,
    },
    /// The HTTP client could not be made.
    #[error("set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

impl OriginError {
    /// Whether the same call may go well a moment later: nobody answered, or a server that is starting or stopping did.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Problem(problem) => matches!(problem.status, 502..=504),
            Self::Unexpected { status, .. } => matches!(status.as_u16(), 502..=504),
            Self::Client(_) => false,
        }
    }
}

/// Origin, as one token sees it.
#[derive(Clone, Debug)]
pub struct Origin {
    http: reqwest::Client,
    access: Access,
    /// Which of the addresses is asked now; another once that one does not answer.
    turn: Arc<AtomicUsize>,
}

impl Origin {
    /// A client of the API at `access`.
    pub fn new(access: Access) -> Result<Self, OriginError> {
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        if std::iter::once(&access.api)
            .chain(&access.others)
            .all(is_loopback)
        {
            http = http.no_proxy();
        }
        Ok(Self {
            http: http.build().map_err(OriginError::Client)?,
            access,
            turn: Arc::default(),
        })
    }

    /// Reads a view.
    pub async fn read<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, OriginError> {
        self.call(self.request(Method::GET, path)).await
    }

    /// Reads a view with one query parameter.
    pub async fn query<T: DeserializeOwned>(
        &self,
        path: &[&str],
        name: &str,
        value: &str,
    ) -> Result<T, OriginError> {
        self.call(self.request(Method::GET, path).query(&[(name, value)]))
            .await
    }

    /// Reads a view with those query parameters that have a value.
    pub async fn search<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, Option<String>)],
    ) -> Result<T, OriginError> {
        let given: Vec<(&str, &String)> = query
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_ref()?)))
            .collect();
        self.call(self.request(Method::GET, path).query(&given))
            .await
    }

    /// Sends a body and reads the view that it makes.
    pub async fn create<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, OriginError> {
        self.call(self.request(Method::POST, path).json(body)).await
    }

    /// Sends a body that is answered with nothing.
    ///
    /// # Errors
    /// When origin refuses, or does not answer.
    pub async fn tell(&self, path: &[&str], body: &impl Serialize) -> Result<(), OriginError> {
        let request = self.request(Method::POST, path).json(body);
        self.accepted(request).await.map(drop)
    }

    /// Like [`Origin::create`], and may be repeated under the same `key`.
    pub async fn create_once<T: DeserializeOwned>(
        &self,
        path: &[&str],
        key: &str,
        body: &impl Serialize,
    ) -> Result<T, OriginError> {
        self.call(
            self.request(Method::POST, path)
                .header(IDEMPOTENCY_KEY, key)
                .json(body),
        )
        .await
    }

    /// Sets something to `body`, with one query parameter.
    pub async fn set<T: DeserializeOwned>(
        &self,
        path: &[&str],
        (name, value): (&str, &str),
        body: &impl Serialize,
    ) -> Result<T, OriginError> {
        let request = self.request(Method::PUT, path).query(&[(name, value)]);
        self.call(request.json(body)).await
    }

    /// Sets something to `body`.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, OriginError> {
        self.call(self.request(Method::PUT, path).json(body)).await
    }

    /// Removes something that answers with nothing, with one query parameter.
    pub async fn discard_with(
        &self,
        path: &[&str],
        (name, value): (&str, &str),
    ) -> Result<(), OriginError> {
        let request = self.request(Method::DELETE, path).query(&[(name, value)]);
        self.accepted(request).await.map(drop)
    }

    /// Removes something that answers with what became of it.
    pub async fn remove<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, OriginError> {
        self.call(self.request(Method::DELETE, path)).await
    }

    /// The same, of what a query names.
    pub async fn remove_of<T: DeserializeOwned>(
        &self,
        path: &[&str],
        queries: &[(&str, &str)],
    ) -> Result<T, OriginError> {
        self.call(self.request(Method::DELETE, path).query(queries))
            .await
    }

    /// Removes something that answers with nothing.
    pub async fn discard(&self, path: &[&str]) -> Result<(), OriginError> {
        self.accepted(self.request(Method::DELETE, path))
            .await
            .map(drop)
    }

    /// Sends bytes, with extra headers.
    pub async fn upload(
        &self,
        method: Method,
        path: &[&str],
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<Response, OriginError> {
        let request = headers
            .iter()
            .fold(self.request(method, path), |request, (name, value)| {
                request.header(*name, value)
            });
        self.accepted(request.body(body)).await
    }

    /// Starts to read a stream that has no end in time.
    pub(crate) async fn open(&self, path: &[&str]) -> Result<Response, OriginError> {
        self.open_after(path, None).await
    }

    /// The same, going on after the event of this id.
    pub(crate) async fn open_after(
        &self,
        path: &[&str],
        last: Option<&str>,
    ) -> Result<Response, OriginError> {
        let request = self
            .http
            .get(self.url(path))
            .bearer_auth(&self.access.token);
        let request = match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        };
        self.accepted(request).await
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.http
            .request(method, self.url(path))
            .bearer_auth(&self.access.token)
            .timeout(CALL_TIMEOUT)
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.api().clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        url
    }

    async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, OriginError> {
        let response = self.accepted(request).await?;
        let (what, status) = (response.url().path().to_owned(), response.status());
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|_| self.unexpected(what, status))
    }

    /// The address that is asked now.
    fn api(&self) -> &Url {
        let turn = self.turn.load(Ordering::Relaxed) % self.addresses();
        match turn.checked_sub(1) {
            None => &self.access.api,
            Some(other) => self.access.others.get(other).unwrap_or(&self.access.api),
        }
    }

    /// From now on the next address is asked.
    pub(crate) fn pass_over(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    fn addresses(&self) -> usize {
        1 + self.access.others.len()
    }

    /// Sends a request to the address whose turn it is; one that never left goes to the next, once around.
    async fn send(&self, request: RequestBuilder) -> Result<Response, OriginError> {
        let mut request = request.build().map_err(|source| self.unreachable(source))?;
        let mut left = self.addresses();
        loop {
            left -= 1;
            let again = request.try_clone();
            match self.http.execute(request).await {
                Ok(response) => {
                    if matches!(response.status().as_u16(), 502..=504) {
                        self.pass_over();
                    }
                    return Ok(response);
                }
                Err(source) => {
                    let error = self.unreachable(source);
                    let OriginError::Unreachable { source, .. } = &error else {
                        return Err(error);
                    };
                    self.pass_over();
                    match again {
                        Some(mut next) if source.is_connect() && left > 0 => {
                            move_to(next.url_mut(), self.api());
                            request = next;
                        }
                        _ => return Err(error),
                    }
                }
            }
        }
    }

    /// Sends a request; anything but success is an error, save a conflict that names the offset to go on from.
    async fn accepted(&self, request: RequestBuilder) -> Result<Response, OriginError> {
        let response = self.send(request).await?;
        let (what, status) = (response.url().path().to_owned(), response.status());
        let elsewhere =
            status == StatusCode::CONFLICT && response.headers().contains_key(UPLOAD_OFFSET);
        if status.is_success() || elsewhere {
            return Ok(response);
        }
        let body = self.body(response).await?;
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => OriginError::Problem(Box::new(problem)),
            Err(_) => self.unexpected(what, status),
        })
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, OriginError> {
        let (what, status) = (response.url().path().to_owned(), response.status());
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|source| self.unreachable(source))?
        {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.unexpected(what, status));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    pub(crate) fn unreachable(&self, source: reqwest::Error) -> OriginError {
        let (api, found) = (self.api().clone(), self.access.found.clone());
        OriginError::Unreachable {
            api,
            found,
            source: source.without_url(),
        }
    }

    fn unexpected(&self, what: String, status: StatusCode) -> OriginError {
        OriginError::Unexpected {
            api: self.api().clone(),
            what,
            status,
        }
    }
}

/// The same request, of another origin. Bases with a path of their own keep the one of the first.
fn move_to(url: &mut Url, api: &Url) {
    // Both are http or https with a host, so nothing of it can be refused.
    let _ = url.set_scheme(api.scheme());
    let _ = url.set_host(api.host_str());
    let _ = url.set_port(api.port());
}

/// A proxy of the environment cannot reach this machine's own loopback.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
