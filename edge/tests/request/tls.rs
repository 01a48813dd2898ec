//! The same edge behind TLS: certificates by name, tickets, and who is told to go elsewhere.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use helix_edge::limits::Limits;
use helix_edge::listener::TlsListener;
use helix_edge::tls::{CertificateFiles, Certificates};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, StreamOwned,
};
use tempfile::TempDir;

use crate::support::{Edge, PATIENCE};
use crate::trust::Anybody;

pub(crate) type Connection = StreamOwned<ClientConnection, TcpStream>;

/// An edge with two certificates: for `shop.example` and `*.shop.example`, and for `other.example`.
pub(crate) struct Secure {
    pub(crate) edge: Edge,
    certificates: Arc<Certificates>,
    files: Vec<CertificateFiles>,
    _folder: TempDir,
}

impl Secure {
    fn start(limits: Limits) -> Self {
        Self::with(
            &[
                ("shop", &["shop.example", "*.shop.example"]),
                ("other", &["other.example"]),
            ],
            limits,
        )
    }

    /// One with a certificate for these hosts.
    pub(crate) fn for_hosts(hosts: &[&str], limits: Limits) -> Self {
        Self::with(&[("one", hosts)], limits)
    }

    fn with(certificates: &[(&str, &[&str])], limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = certificates
            .iter()
            .map(|(name, hosts)| write(folder.path(), name, hosts))
            .collect();
        let certificates = Certificates::open(files.clone()).unwrap();
        let tls = TlsListener {
            addr: "127.0.0.1:0".parse().unwrap(),
            public_port: None,
            certificates: Arc::clone(&certificates),
        };
        let edge = Edge::on(limits, Some(tls), None);
        Self {
            edge,
            certificates,
            files,
            _folder: folder,
        }
    }

    /// Those that it answers with.
    pub(crate) fn certificates(&self) -> Arc<Certificates> {
        Arc::clone(&self.certificates)
    }

    /// A client that trusts what is on disk now.
    pub(crate) fn client(&self, alpn: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for files in &self.files {
            let leaf = CertificateDer::from_pem_file(&files.cert).unwrap();
            roots.add(leaf).unwrap();
        }
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    /// Shakes hands for `name`.
    pub(crate) fn connect(
        &self,
        config: &Arc<ClientConfig>,
        name: &str,
    ) -> std::io::Result<Connection> {
        let socket = TcpStream::connect(self.edge.handle.tls_addr().unwrap())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = name.to_owned().try_into().unwrap();
        let session = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut connection = StreamOwned::new(session, socket);
        while connection.conn.is_handshaking() {
            connection.conn.complete_io(&mut connection.sock)?;
        }
        Ok(connection)
    }

    fn handshakes(&self, outcome: &str) -> u64 {
        let handshakes = &self.edge.metrics.handshakes;
        handshakes.with_label_values(&[outcome]).get()
    }
}

fn write(folder: &Path, name: &str, hosts: &[&str]) -> CertificateFiles {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(hosts).unwrap();
    let files = CertificateFiles {
        cert: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    };
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    files
}

fn ask(connection: &mut Connection, host: &str) -> u16 {
    let request = format!("GET /a.txt HTTP/1.1\r\nHost: {host}\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut part = [0; 4096];
        let read = connection.read(&mut part).unwrap();
        assert!(read > 0, "closed within a head");
        head.extend_from_slice(&part[..read]);
    }
    std::str::from_utf8(&head["HTTP/1.1 ".len()..][..3])
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn a_handshake_uses_the_post_quantum_group_and_answers_over_http1() {
    let secure = Secure::start(Limits::default());
    let config = Arc::new(secure.client(&[b"http/1.1"]));
    let mut connection = secure.connect(&config, "shop.example").unwrap();
    let group = connection.conn.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    assert_eq!(
        connection.conn.alpn_protocol(),
        Some(b"http/1.1".as_slice())
    );
    assert_eq!(ask(&mut connection, "shop.example"), 200);
    assert_eq!(ask(&mut connection, "SHOP.example:443"), 200);
    assert_eq!(secure.handshakes("full"), 1);
}

#[test]
fn a_name_chooses_the_certificate_and_the_certificate_limits_the_hosts() {
    let secure = Secure::start(Limits::default());
    let config = Arc::new(secure.client(&[]));
    for (name, host, status) in [
        ("shop.example", "shop.example", 200),
        ("shop.example", "shop.example.", 200),
        ("shop.example", "www.shop.example", 404),
        ("www.shop.example", "shop.example", 200),
        ("shop.example", "a.b.shop.example", 421),
        ("shop.example", "other.example", 421),
        ("shop.example", "127.0.0.1", 421),
        ("shop.example", "[::1]", 421),
        ("other.example", "other.example", 404),
        ("other.example", "shop.example", 421),
    ] {
        let mut connection = secure.connect(&config, name).unwrap();
        assert_eq!(ask(&mut connection, host), status, "{name} {host}");
    }
    let refused = &secure.edge.metrics.heads_refused;
    assert_eq!(refused.with_label_values(&["misdirected"]).get(), 5);
}

#[test]
fn a_name_that_no_certificate_covers_gets_an_alert() {
    let secure = Secure::start(Limits::default());
    let config = Arc::new(secure.client(&[]));
    let error = secure.connect(&config, "nobody.example").unwrap_err();
    assert!(error.to_string().contains("alert"), "{error}");
    let until = Instant::now() + PATIENCE;
    while secure.handshakes("unknown_name") == 0 {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
}

#[test]
fn a_session_is_resumed_for_its_own_name_only() {
    let secure = Secure::start(Limits::default());
    for versions in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[versions])
                .unwrap()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(Anybody));
        let (shop, other) = (Arc::new(Store::default()), "other.example");
        config.resumption = Resumption::store(Arc::clone(&shop) as _);
        let config = Arc::new(config);
        let mut first = secure.connect(&config, "shop.example").unwrap();
        assert_eq!(ask(&mut first, "shop.example"), 200);
        assert_eq!(first.conn.handshake_kind(), Some(HandshakeKind::Full));
        let mut second = secure.connect(&config, "shop.example").unwrap();
        assert_eq!(ask(&mut second, "shop.example"), 200);
        assert_eq!(second.conn.handshake_kind(), Some(HandshakeKind::Resumed));
        // The store gives the session of the one name to the other.
        let third = secure.connect(&config, other).unwrap();
        assert_ne!(third.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    }
}

#[test]
fn http2_by_alpn_answers_and_sends_others_elsewhere() {
    let secure = Secure::start(Limits::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = Arc::new(secure.client(&[b"h2", b"http/1.1"]));
        let addr = secure.edge.handle.tls_addr().unwrap();
        let socket = tokio::net::TcpStream::connect(addr).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        let name = "shop.example".try_into().unwrap();
        let stream = connector.connect(name, socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let (mut requests, driver) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(driver);
        for (host, status) in [
            ("shop.example", 200),
            ("www.shop.example", 404),
            ("other.example", 421),
        ] {
            let url = format!("https://{host}/a.txt");
            let request = http::Request::get(url).body(()).unwrap();
            requests = requests.ready().await.unwrap();
            let (response, _) = requests.send_request(request, true).unwrap();
            let response = tokio::time::timeout(PATIENCE, response).await.unwrap();
            assert_eq!(response.unwrap().status().as_u16(), status, "{host}");
        }
    });
}

#[test]
fn changed_files_are_used_and_unusable_ones_are_not() {
    let secure = Secure::start(Limits::default());
    let config = Arc::new(secure.client(&[]));
    let mut before = secure.connect(&config, "shop.example").unwrap();
    assert!(!secure.certificates.reload().unwrap());

    let folder = secure.files[0].cert.parent().unwrap();
    std::fs::write(&secure.files[1].cert, "no certificate").unwrap();
    assert!(secure.certificates.reload().is_err());
    assert!(secure.connect(&config, "other.example").is_ok());

    write(folder, "other", &["new.example"]);
    assert!(secure.certificates.reload().unwrap());
    let config = Arc::new(secure.client(&[]));
    assert!(secure.connect(&config, "new.example").is_ok());
    assert!(secure.connect(&config, "other.example").is_err());
    // What was connected goes on.
    assert_eq!(ask(&mut before, "shop.example"), 200);
}

/// How many slow clients; many more by the variable, for a machine that is left alone.
fn slow_clients() -> usize {
    std::env::var("HELIX_SLOW_CLIENTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(200)
}

#[test]
fn slow_handshakes_and_slow_heads_are_cut() {
    let secure = Secure::start(Limits {
        head_deadline: Duration::from_secs(1),
        ..Limits::default()
    });
    let addr = secure.edge.handle.tls_addr().unwrap();
    let config = Arc::new(secure.client(&[]));
    let started = Instant::now();
    let mut silent: Vec<TcpStream> = (0..slow_clients())
        .map(|_| {
            let mut socket = TcpStream::connect(addr).unwrap();
            // The first bytes of a record with a ClientHello.
            socket.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        })
        .collect();
    let mut slow = secure.connect(&config, "shop.example").unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut rest = Vec::new();
    for socket in &mut silent {
        // The end, or a reset: both are the end.
        let _ = socket.read_to_end(&mut rest);
    }
    let _ = slow.read_to_end(&mut rest);
    assert!(started.elapsed() < PATIENCE);
    secure.edge.until_idle();
    let cut = u64::try_from(slow_clients()).unwrap();
    assert_eq!(secure.handshakes("timeout"), cut);
}

/// Keeps the last session, and gives it to whoever asks.
#[derive(Debug, Default)]
struct Store {
    tickets: std::sync::Mutex<Vec<rustls::client::Tls13ClientSessionValue>>,
    older: std::sync::Mutex<Option<rustls::client::Tls12ClientSessionValue>>,
}

impl rustls::client::ClientSessionStore for Store {
    fn set_kx_hint(&self, _: rustls::pki_types::ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &rustls::pki_types::ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(
        &self,
        _: rustls::pki_types::ServerName<'static>,
        value: rustls::client::Tls12ClientSessionValue,
    ) {
        *self.older.lock().unwrap() = Some(value);
    }

    fn tls12_session(
        &self,
        _: &rustls::pki_types::ServerName<'_>,
    ) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.older.lock().unwrap().clone()
    }

    fn remove_tls12_session(&self, _: &rustls::pki_types::ServerName<'static>) {}

    fn insert_tls13_ticket(
        &self,
        _: rustls::pki_types::ServerName<'static>,
        value: rustls::client::Tls13ClientSessionValue,
    ) {
        self.tickets.lock().unwrap().push(value);
    }

    fn take_tls13_ticket(
        &self,
        _: &rustls::pki_types::ServerName<'static>,
    ) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.tickets.lock().unwrap().pop()
    }
}
