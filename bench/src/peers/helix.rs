//! helix-edge as `helix dev` starts it, serving a deployed folder: one serving thread, access log and metrics on.

use std::fs;
use std::net::SocketAddr;

use anyhow::Context as _;
use helix_tests::fleet::{Fleet, Options};

use super::files::{Files, text};
use super::process::{SERVER_CORE, Server, pin};

const SETUP: &str = "built by make dist, 1 serving thread, a release deployed through origin, access log (combined, pages of 64 KiB) to a file, metrics, forward without cache";

/// The access log as the others write it.
const COMBINED: (&str, &str) = ("HELIX_EDGE_ACCESS_LOG__FORMAT", "combined");

const TWO_THREADS: &str = "2 serving threads";

pub(crate) fn start(files: &Files, upstream: SocketAddr) -> anyhow::Result<Server> {
    start_on(SERVER_CORE, files, upstream)
}

/// On this core.
pub(crate) fn start_on(core: &str, files: &Files, upstream: SocketAddr) -> anyhow::Result<Server> {
    let options = Options {
        settings: &[COMBINED],
        ..Options::default()
    };
    let server = of(Fleet::start(&options), files, upstream, SETUP)?;
    server.pid.map(|pid| pin(pid, core)).transpose()?;
    Ok(server)
}

/// The same with two serving threads, which may use every core.
pub(crate) fn start_with_two_threads(
    files: &Files,
    upstream: SocketAddr,
) -> anyhow::Result<Server> {
    let options = Options {
        settings: &[("HELIX_EDGE_THREADS", "2"), COMBINED],
        ..Options::default()
    };
    of(Fleet::start(&options), files, upstream, TWO_THREADS)
}

fn of(
    fleet: Fleet,
    files: &Files,
    upstream: SocketAddr,
    setup: &'static str,
) -> anyhow::Result<Server> {
    // The folder is that of the other servers, with rules of our own beside it.
    let folder = files.folder_of("helix")?;
    for name in ["1k.bin", "100k.bin"] {
        fs::copy(files.site().join(name), folder.join(name))?;
    }
    let rules = format!(
        "[upstreams.up]\naddresses = [\"http://{upstream}\"]\n\n[[forward]]\npath = \"/proxy/*\"\nupstream = \"up\"\n"
    );
    fs::write(folder.join("helix.toml"), rules)?;
    let _ = fleet
        .helix()
        .run(["deploy", &text(&folder), "--project", "bench", "--json"])
        .with(0);
    let (_, edge) = fleet.edges().next().context("a fleet has edges")?;
    let address = |url: &str| -> anyhow::Result<SocketAddr> {
        let (_, address) = url.rsplit_once('/').context("a URL has slashes")?;
        address
            .replace("localhost", "127.0.0.1")
            .parse()
            .with_context(|| format!("{url} names an address"))
    };
    let pid = fleet.pid(edge.edge.as_str());
    let https = edge.https.as_deref().map(address).transpose()?;
    Ok(Server {
        name: "helix-edge",
        version: env!("CARGO_PKG_VERSION").to_owned(),
        setup,
        http: Some(address(&edge.http)?),
        https,
        gaps: Vec::new(),
        pid: Some(pid),
        _keeper: Some(Box::new(fleet)),
    })
}
