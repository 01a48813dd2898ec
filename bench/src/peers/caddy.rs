//! Caddy: one core by GOMAXPROCS, access log into a file, metrics on.

use std::fs;
use std::net::SocketAddr;

use super::files::{Files, HOST, text};
use super::process::{SERVER_CORE, Server, free_address, start as run, version};

const SETUP: &str = "GOMAXPROCS=1, file_server, JSON access log to a file, metrics";

pub(crate) fn start(files: &Files, upstream: SocketAddr) -> anyhow::Result<Server> {
    let Some(version) = version("caddy", "version") else {
        return Ok(Server::missing("caddy"));
    };
    let folder = files.folder_of("caddy")?;
    let (http, https, admin) = (free_address()?, free_address()?, free_address()?);
    let site = |scheme: &str, addr: SocketAddr, tls: &str| {
        format!(
            "{scheme}://{HOST}:{port}, {scheme}://127.0.0.1:{port} {{
  bind 127.0.0.1
  {tls}
  log {{
    output file {log}
  }}
  root * {root}
  handle /proxy/* {{
    reverse_proxy {upstream}
  }}
  handle {{
    file_server
  }}
}}
",
            port = addr.port(),
            log = text(&folder.join("access.log")),
            root = text(&files.site()),
        )
    };
    let tls = format!("tls {} {}", text(&files.certificate()), text(&files.key()));
    let config = format!(
        "{{
  admin {admin}
  auto_https off
  persist_config off
  storage file_system {storage}
  metrics
  default_sni {HOST}
  servers {{
    protocols h1 h2 h3
  }}
}}
{}{}",
        site("http", http, ""),
        site("https", https, &tls),
        storage = text(&folder),
    );
    let path = folder.join("Caddyfile");
    fs::write(&path, config)?;
    let command = [
        "caddy",
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        &text(&path),
    ];
    let (pid, keeper) = run(SERVER_CORE, &command, &[("GOMAXPROCS", "1")], &folder, http)?;
    Ok(Server {
        name: "caddy",
        version,
        setup: SETUP,
        http: Some(http),
        https: Some(https),
        gaps: Vec::new(),
        pid: Some(pid),
        _keeper: Some(keeper),
    })
}
