//! HAProxy: one thread, its log into a file through a socket nobody reads would lie; so it logs to standard output.

use std::fs;
use std::net::SocketAddr;

use super::case::Case;
use super::files::{Files, text};
use super::process::{SERVER_CORE, Server, free_address, start as run, version};

const SETUP: &str = "nbthread 1, httplog to a file, stats page, http-reuse always; the 1 KiB body is an in-memory `http-request return`";

pub(crate) fn start(files: &Files, upstream: SocketAddr) -> anyhow::Result<Server> {
    let Some(version) = version("haproxy", "-v") else {
        return Ok(Server::missing("haproxy"));
    };
    let folder = files.folder_of("haproxy")?;
    let (http, https, status) = (free_address()?, free_address()?, free_address()?);
    let config = format!(
        "global
  nbthread 1
  maxconn 4000
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  timeout http-request 10s
frontend main
  bind {http}
  bind {https} ssl crt {pair} alpn h2,http/1.1
  http-request return status 200 content-type application/octet-stream file {site}/1k.bin if !{{ path_beg /proxy/ }}
  default_backend up
backend up
  http-reuse always
  option forwardfor
  server one {upstream}
frontend stats
  bind {status}
  stats enable
  stats uri /
",
        pair = text(&files.pair()),
        site = text(&files.site()),
    );
    let path = folder.join("haproxy.cfg");
    fs::write(&path, config)?;
    let (pid, keeper) = run(
        SERVER_CORE,
        &["haproxy", "-f", &text(&path)],
        &[],
        &folder,
        http,
    )?;
    Ok(Server {
        name: "haproxy",
        version,
        setup: SETUP,
        http: Some(http),
        https: Some(https),
        gaps: vec![
            (Case::Static100k, "serves no files"),
            (Case::Http3, "this build has no QUIC"),
        ],
        pid: Some(pid),
        _keeper: Some(keeper),
    })
}
