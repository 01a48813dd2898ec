//! A client of HTTP/3 that trusts a fleet's certificate, and a load of such clients that never stop asking.
//!
//! A request that a server says it has not taken (GOAWAY, `H3_REQUEST_REJECTED`) is made again on a new connection, as
//! every client does; anything else that keeps an answer away is a failure, and none is forgotten.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3::error::{Code, StreamError};
use h3_quinn::OpenStreams;
use http::{Request, StatusCode};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::fleet::Fleet;

/// Longer than any single answer takes on a loaded machine; a hang is a failure.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Between two requests of one client. It leaves the machine's cores to what is being tested.
const PACE: Duration = Duration::from_millis(4);
/// Clients that keep their connection for as long as it is kept for them.
const FAITHFUL: usize = 3;
/// Requests that a client makes which then comes with a new connection.
const BRIEFLY: usize = 3;

/// One stream of a request.
pub type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// Where one edge speaks HTTP/3, and how.
#[derive(Clone, Debug)]
pub struct Http3 {
    config: quinn::ClientConfig,
    address: SocketAddr,
    host: String,
}

/// One connection.
#[expect(
    missing_debug_implementations,
    reason = "the client's own types have none"
)]
pub struct Connection {
    requests: SendRequest<OpenStreams, Bytes>,
    /// Ends with the connection, and says how that came.
    pub driver: tokio::task::JoinHandle<h3::error::ConnectionError>,
    _endpoint: quinn::Endpoint,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Fault {
    /// The server has not taken the request, and said so.
    NotTaken,
    /// Anything else.
    Failed(String),
}

impl Http3 {
    /// At the edge `edge` of `fleet`, for `host`.
    ///
    /// # Panics
    /// When the edge has no certificate.
    #[must_use]
    pub fn of(fleet: &Fleet, edge: &str, host: &str) -> Self {
        let config = fleet.config(edge);
        let tls = &config["tls"];
        let files = tls["certificates"].as_array().unwrap();
        let trusted = CertificateDer::from_pem_file(files[0]["cert"].as_str().unwrap()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(trusted).unwrap();
        let mut client =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        client.alpn_protocols = vec![b"h3".to_vec()];
        let client = QuicClientConfig::try_from(client).unwrap();
        Self {
            config: quinn::ClientConfig::new(Arc::new(client)),
            address: tls["listen"].as_str().unwrap().parse().unwrap(),
            host: host.to_owned(),
        }
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// When that fails.
    pub async fn open(&self) -> Result<Connection, Fault> {
        let failed = |error: &dyn std::fmt::Display| Fault::Failed(format!("connect: {error}"));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = quinn::Endpoint::client(any).map_err(|error| failed(&error))?;
        let connecting = endpoint
            .connect_with(self.config.clone(), self.address, &self.host)
            .map_err(|error| failed(&error))?;
        let connection = timeout(ANSWER_LIMIT, connecting)
            .await
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(&error))?;
        let quic = h3_quinn::Connection::new(connection);
        let (mut driver, requests) = h3::client::new(quic)
            .await
            .map_err(|error| failed(&error))?;
        let driver =
            tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(Connection {
            requests,
            driver,
            _endpoint: endpoint,
        })
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.host)
    }
}

impl Connection {
    /// Sends the head of `request`.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub async fn send(&mut self, request: Request<()>) -> Result<Stream, Fault> {
        self.requests.send_request(request).await.map_err(fault)
    }

    /// The answer to one GET, whole.
    ///
    /// # Errors
    /// When there is none.
    ///
    /// # Panics
    /// When `url` is none.
    pub async fn get(&mut self, url: &str) -> Result<(StatusCode, Vec<u8>), Fault> {
        let request = Request::get(url).body(()).unwrap();
        let mut stream = self.send(request).await?;
        stream.finish().await.map_err(fault)?;
        answer(&mut stream).await
    }
}

/// What answers a request that has been sent.
///
/// # Errors
/// When it is not whole.
pub async fn answer(stream: &mut Stream) -> Result<(StatusCode, Vec<u8>), Fault> {
    let late = |_| Fault::Failed("no answer in time".to_owned());
    let whole = async {
        let head = stream.recv_response().await.map_err(fault)?;
        Ok((head.status(), rest(stream).await?))
    };
    timeout(ANSWER_LIMIT, whole).await.map_err(late)?
}

/// The rest of a body.
///
/// # Errors
/// When it is not whole.
pub async fn rest(stream: &mut Stream) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    let broken_off = |error: StreamError| Fault::Failed(format!("within a body: {error}"));
    while let Some(mut part) = stream.recv_data().await.map_err(broken_off)? {
        let part = part.copy_to_bytes(part.remaining());
        body.extend_from_slice(&part);
    }
    Ok(body)
}

fn fault(error: StreamError) -> Fault {
    match error {
        StreamError::RemoteClosing { .. } => Fault::NotTaken,
        StreamError::RemoteTerminate { code, .. } | StreamError::StreamError { code, .. }
            if code == Code::H3_REQUEST_REJECTED =>
        {
            Fault::NotTaken
        }
        // The connection ended in order, and nothing of an answer has come.
        error if error.is_h3_no_error() => Fault::NotTaken,
        error => Fault::Failed(error.to_string()),
    }
}

/// Clients that ask for `/` until they are told to stop: some keep their connection, one always comes with a new one.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answers: AtomicU64,
    /// How often a faithful client had to come with a new connection.
    moved: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Load {
    /// Starts it.
    ///
    /// # Panics
    /// When there is no runtime.
    #[must_use]
    pub fn start(http3: &Http3) -> Self {
        let shared = Arc::new(Shared::default());
        let (watched, http3) = (Arc::clone(&shared), http3.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut clients = JoinSet::new();
                for _ in 0..FAITHFUL {
                    clients.spawn(ask(http3.clone(), Arc::clone(&watched), usize::MAX));
                }
                clients.spawn(ask(http3, watched, BRIEFLY));
                clients.join_all().await;
            });
        });
        Self { shared, thread }
    }

    /// How often clients that keep their connections were told to come with a new one.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.shared.moved.load(Ordering::Acquire)
    }

    /// Of how many such clients there are.
    #[must_use]
    pub const fn faithful(&self) -> u64 {
        FAITHFUL as u64
    }

    /// Answers so far.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Acquire)
    }

    /// Ends it.
    ///
    /// # Panics
    /// When any request failed, naming the first failures.
    pub fn finish(self) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.join().unwrap();
        let faults = self.shared.faults.lock().unwrap();
        let answers = self.shared.answers.load(Ordering::Acquire);
        assert!(
            faults.is_empty(),
            "{} failed beside {answers} answers; the first: {:?}",
            faults.len(),
            &faults[..faults.len().min(10)]
        );
    }
}

/// Asks, with a new connection after so many requests and whenever the server wants it.
async fn ask(http3: Http3, shared: Arc<Shared>, requests: usize) {
    let url = http3.url("/");
    while !shared.stop.load(Ordering::Acquire) {
        let mut connection = match http3.open().await {
            Ok(connection) => connection,
            Err(fault) => {
                shared.faults.lock().unwrap().push(format!("{fault:?}"));
                continue;
            }
        };
        for _ in 0..requests {
            if shared.stop.load(Ordering::Acquire) {
                return;
            }
            match connection.get(&url).await {
                Ok((StatusCode::OK, _)) => {
                    shared.answers.fetch_add(1, Ordering::AcqRel);
                }
                Ok((status, _)) => shared.faults.lock().unwrap().push(status.to_string()),
                Err(Fault::NotTaken) => {
                    if requests == usize::MAX {
                        shared.moved.fetch_add(1, Ordering::AcqRel);
                    }
                    break;
                }
                Err(Fault::Failed(why)) => {
                    shared.faults.lock().unwrap().push(why);
                    break;
                }
            }
            sleep(PACE).await;
        }
    }
}
