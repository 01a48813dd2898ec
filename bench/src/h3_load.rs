//! A client that asks over HTTP/3 as fast as it is answered.
//!
//! It believes any certificate: it measures servers, on this machine. One thread, so that it can be given one core.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::{Request, Uri};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A request that takes longer has failed.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// What to ask, and how hard.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// What to ask for.
    #[arg(long)]
    url: Uri,
    /// Where, if not where the URL's host is.
    #[arg(long)]
    connect: Option<SocketAddr>,
    /// Connections side by side.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests side by side on each.
    #[arg(long, default_value_t = 16)]
    streams: usize,
    /// For how long.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

#[derive(Debug, serde::Serialize)]
struct Figures {
    requests: usize,
    seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
    errors: usize,
    bytes: usize,
}

/// What one worker saw.
#[derive(Default)]
struct Seen {
    took: Vec<u32>,
    errors: usize,
    bytes: usize,
}

/// Runs the load, and prints the figures.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let figures = runtime.block_on(load(options))?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

async fn load(options: &Options) -> anyhow::Result<Figures> {
    let host = options.url.host().context("the URL has no host")?;
    let addr = match options.connect {
        Some(addr) => addr,
        None => (host, options.url.port_u16().unwrap_or(443))
            .to_socket_addrs()?
            .next()
            .context("the host has no address")?,
    };
    let client = Client::new(addr)?;
    let endpoint = client.endpoint()?;
    let mut connections = Vec::new();
    for _ in 0..options.connections {
        connections.push(client.connect(&endpoint, host).await?);
    }
    let (started, mut workers) = (Instant::now(), JoinSet::new());
    let until = started + Duration::from_secs(options.seconds);
    for requests in &connections {
        for _ in 0..options.streams {
            workers.spawn(work(requests.clone(), options.url.clone(), until));
        }
    }
    let mut all = Seen::default();
    while let Some(seen) = workers.join_next().await {
        let seen = seen?;
        all.took.extend(seen.took);
        all.errors += seen.errors;
        all.bytes += seen.bytes;
    }
    Ok(all.figures(started.elapsed()))
}

impl Seen {
    fn figures(mut self, took: Duration) -> Figures {
        self.took.sort_unstable();
        let at = |share: f64| {
            let place = (self.took.len() as f64 * share) as usize;
            self.took
                .get(place.min(self.took.len().saturating_sub(1)))
                .map_or(0.0, |micros| f64::from(*micros) / 1000.0)
        };
        Figures {
            requests: self.took.len(),
            seconds: took.as_secs_f64(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            errors: self.errors,
            bytes: self.bytes,
        }
    }
}

async fn work(mut requests: SendRequest<OpenStreams, Bytes>, url: Uri, until: Instant) -> Seen {
    let mut seen = Seen::default();
    while Instant::now() < until {
        let started = Instant::now();
        match timeout(REQUEST_DEADLINE, ask(&mut requests, &url)).await {
            Ok(Ok(bytes)) => {
                let micros = started.elapsed().as_micros();
                seen.took.push(u32::try_from(micros).unwrap_or(u32::MAX));
                seen.bytes += bytes;
            }
            _ => {
                seen.errors += 1;
                // A connection that is gone would fail as fast as it is asked.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    seen
}

/// One request; the length of its body if it was answered with success.
async fn ask(requests: &mut SendRequest<OpenStreams, Bytes>, url: &Uri) -> anyhow::Result<usize> {
    let request = Request::get(url.clone()).body(())?;
    let mut stream = requests.send_request(request).await?;
    // It may have been answered before it ends, and then nobody wants its end (RFC 9114 4.1.1).
    let _ = stream.finish().await;
    let response = stream.recv_response().await?;
    anyhow::ensure!(response.status().is_success(), "{}", response.status());
    let mut bytes = 0;
    while let Some(part) = stream.recv_data().await? {
        bytes += part.remaining();
    }
    Ok(bytes)
}

/// Connects to one server.
pub(crate) struct Client {
    to: SocketAddr,
    config: quinn::ClientConfig,
}

impl Client {
    pub(crate) fn new(to: SocketAddr) -> anyhow::Result<Self> {
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(believing(b"h3")?)?;
        let config = quinn::ClientConfig::new(Arc::new(tls));
        Ok(Self { to, config })
    }

    /// A socket of its own. To be called within a runtime.
    pub(crate) fn endpoint(&self) -> anyhow::Result<quinn::Endpoint> {
        let any = if self.to.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        Ok(quinn::Endpoint::client(SocketAddr::new(any, 0))?)
    }

    /// A connection that lives as long as what is given back, and the runtime.
    pub(crate) async fn connect(
        &self,
        endpoint: &quinn::Endpoint,
        host: &str,
    ) -> anyhow::Result<SendRequest<OpenStreams, Bytes>> {
        let connecting = endpoint.connect_with(self.config.clone(), self.to, host)?;
        let quic = h3_quinn::Connection::new(connecting.await?);
        let (mut driver, requests) = h3::client::new(quic).await?;
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(requests)
    }
}

/// A client of TLS 1.3 that believes any certificate, and resumes nothing.
pub(crate) fn believing(alpn: &[u8]) -> anyhow::Result<rustls::ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(tls)
}

/// Believes every certificate, though not every signature.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
