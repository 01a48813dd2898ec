//! What a connection costs the edge while it waits: resident memory, after one request on each of many.
//!
//! Kernel memory is not in it. Some connections come and go first, so that what is made once is not counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Buf as _;
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use helix_tests::fleet::Fleet;
use helix_tests::folder::Folder;
use helix_tests::wait;
use nix::unistd::Pid;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::h3_load;

/// Connections that come and go before any is counted.
const FIRST: usize = 200;
/// For what is freed late, and for connections to be found closed.
const SETTLES: Duration = Duration::from_secs(2);
/// An answer that takes longer will not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints the resident memory that each of `count` idle connections of a kind costs.
pub(crate) fn run(fleet: &Fleet, count: usize) -> anyhow::Result<()> {
    let page = Folder::page("idle");
    fleet.deploy("idle", &page);
    let (_, edge) = fleet.edges().next().context("a fleet has edges")?;
    let pid = fleet.pid(edge.edge.as_str());
    let host = fleet.host("idle");
    let plain = address(&edge.http)?;
    let secure = address(edge.https.as_deref().context("it speaks TLS")?)?;
    let http1 = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let tls = |alpn: &[u8]| h3_load::believing(alpn).map(Arc::new);
    let (over1, over2) = (tls(b"http/1.1")?, tls(b"h2")?);
    measure(pid, "HTTP/1.1", count, || {
        let stream = connected(plain)?;
        asked(stream, http1.as_bytes(), answered1)
    })?;
    measure(pid, "HTTP/1.1 over TLS", count, || {
        let stream = secured(secure, &over1, &host)?;
        asked(stream, http1.as_bytes(), answered1)
    })?;
    measure(pid, "HTTP/2 over TLS", count, || {
        let stream = secured(secure, &over2, &host)?;
        asked(stream, &http2_request(&host), answered2)
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let quic = h3_load::Client::new(secure)?;
    let url: http::Uri = format!("https://{host}/").parse()?;
    let endpoint = runtime.block_on(async { quic.endpoint() })?;
    measure(pid, "HTTP/3", count, || {
        runtime.block_on(async {
            let mut requests = quic.connect(&endpoint, &host).await?;
            one(&mut requests, &url).await.map(|()| requests)
        })
    })
}

/// Opens `count` connections, and prints what the process has grown by, for each.
fn measure<T>(
    pid: Pid,
    name: &str,
    count: usize,
    open: impl Fn() -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    let some = |count: usize| {
        (0..count)
            .map(|_| open())
            .collect::<anyhow::Result<Vec<T>>>()
    };
    drop(some(FIRST)?);
    wait::pause(SETTLES);
    let before = resident(pid)?;
    let opened = some(count)?;
    wait::pause(SETTLES);
    let after = resident(pid)?;
    drop(opened);
    wait::pause(SETTLES);
    let each = (after - before) * 1024.0 / count as f64;
    println!(
        "{name:<18} {count} idle connections: {each:7.0} bytes each ({:.1} KiB)",
        each / 1024.0
    );
    Ok(())
}

/// Resident memory in KiB.
fn resident(pid: Pid) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn address(url: &str) -> anyhow::Result<SocketAddr> {
    let (_, address) = url.rsplit_once('/').context("a URL has slashes")?;
    let address = address.replace("localhost", "127.0.0.1");
    address
        .parse()
        .with_context(|| format!("{url} names an address"))
}

fn connected(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn secured(
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    host: &str,
) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = host.to_owned().try_into()?;
    let session = ClientConnection::new(Arc::clone(config), name)?;
    Ok(StreamOwned::new(session, connected(to)?))
}

/// Sends `request`, and reads until `answered` says that the response is whole.
fn asked<S: Read + Write>(
    mut stream: S,
    request: &[u8],
    answered: fn(&[u8]) -> anyhow::Result<bool>,
) -> anyhow::Result<S> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut received = Vec::new();
    while !answered(&received)? {
        let mut part = [0; 4096];
        let read = stream.read(&mut part)?;
        ensure!(read > 0, "closed before the answer");
        received.extend_from_slice(part.get(..read).unwrap_or_default());
    }
    Ok(stream)
}

/// The page ends in a paragraph.
fn answered1(received: &[u8]) -> anyhow::Result<bool> {
    let begun = received.len() < 13 || received.starts_with(b"HTTP/1.1 200 ");
    ensure!(begun, "refused: {}", String::from_utf8_lossy(received));
    Ok(received.ends_with(b"</p>\n"))
}

/// The preface, settings that change nothing, and a request in literals (RFC 9113 3.4, RFC 7541 6.2.2).
fn http2_request(host: &str) -> Vec<u8> {
    // GET, https and / are in the static table, as is the name of the authority.
    let mut block = vec![0x82, 0x87, 0x84, 0x01];
    block.push(u8::try_from(host.len()).unwrap());
    block.extend_from_slice(host.as_bytes());
    let length = u8::try_from(block.len()).unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let head = [0, 0, length, 1, 5, 0, 0, 0, 1];
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    [&preface[..], &settings, &head, &block].concat()
}

/// Whether the frame that ends the stream has come.
fn answered2(mut received: &[u8]) -> anyhow::Result<bool> {
    while let [a, b, c, kind, flags, _, _, _, stream, rest @ ..] = received {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(after) = rest.get(length..) else {
            return Ok(false);
        };
        if matches!(kind, 3 | 7) {
            bail!("the request is refused");
        }
        if *stream == 1 && matches!(kind, 0 | 1) && flags & 1 != 0 {
            return Ok(true);
        }
        received = after;
    }
    Ok(false)
}

async fn one(
    requests: &mut SendRequest<OpenStreams, bytes::Bytes>,
    url: &http::Uri,
) -> anyhow::Result<()> {
    let request = http::Request::get(url.clone()).body(())?;
    let mut stream = requests.send_request(request).await?;
    // It may have been answered before it ends, and then nobody wants its end.
    let _ = stream.finish().await;
    let status = stream.recv_response().await?.status();
    ensure!(status.is_success(), "{status}");
    while let Some(part) = stream.recv_data().await? {
        ensure!(part.has_remaining(), "an empty part");
    }
    Ok(())
}
