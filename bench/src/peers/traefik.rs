//! Traefik: one core by GOMAXPROCS, access log into a file, Prometheus metrics on. It proxies; it serves no files.

use std::fs;
use std::net::SocketAddr;

use super::case::Case;
use super::files::{Files, text};
use super::process::{SERVER_CORE, Server, free_address, start as run, version};

const SETUP: &str = "GOMAXPROCS=1, access log to a file (buffered), Prometheus metrics; handshakes end in its own ping page";
const NO_FILES: &str = "serves no files";

pub(crate) fn start(files: &Files, upstream: SocketAddr) -> anyhow::Result<Server> {
    let Some(version) = version("traefik", "version") else {
        return Ok(Server::missing("traefik"));
    };
    let folder = files.folder_of("traefik")?;
    let (http, https, admin) = (free_address()?, free_address()?, free_address()?);
    let routes_path = folder.join("routes.yml");
    fs::write(&routes_path, routes(files, upstream))?;
    let config = format!(
        "entryPoints:
  web:
    address: {http}
  tls:
    address: {https}
  metrics:
    address: {admin}
ping:
  manualRouting: true
metrics:
  prometheus:
    entryPoint: metrics
accessLog:
  filePath: {log}
  bufferingSize: 1000
global:
  checkNewVersion: false
  sendAnonymousUsage: false
providers:
  file:
    filename: {routes}
",
        log = text(&folder.join("access.log")),
        routes = text(&routes_path),
    );
    let path = folder.join("traefik.yml");
    fs::write(&path, config)?;
    let command = ["traefik", &format!("--configFile={}", text(&path))];
    let (pid, keeper) = run(SERVER_CORE, &command, &[("GOMAXPROCS", "1")], &folder, http)?;
    Ok(Server {
        name: "traefik",
        version,
        setup: SETUP,
        http: Some(http),
        https: Some(https),
        gaps: vec![
            (Case::Static1k, NO_FILES),
            (Case::Static100k, NO_FILES),
            (Case::Tls1k, NO_FILES),
            (Case::Http2, NO_FILES),
            (Case::Http3, NO_FILES),
        ],
        pid: Some(pid),
        _keeper: Some(keeper),
    })
}

/// Forwards on the plain port, its own ping page on the TLS port.
fn routes(files: &Files, upstream: SocketAddr) -> String {
    format!(
        "http:
  routers:
    proxy:
      rule: PathPrefix(`/proxy/`)
      entryPoints: [web]
      service: up
    ping:
      rule: PathPrefix(`/`)
      entryPoints: [tls]
      service: ping@internal
      tls: {{}}
  services:
    up:
      loadBalancer:
        servers:
          - url: http://{upstream}
tls:
  stores:
    default:
      defaultCertificate:
        certFile: {certificate}
        keyFile: {key}
",
        certificate = text(&files.certificate()),
        key = text(&files.key()),
    )
}
