//! nginx as its users run it for files: keep-alive without end, a buffered access log, status page on.

use std::fs;
use std::net::SocketAddr;

use super::case::Case;
use super::files::{Files, text};
use super::process::{LOAD_CORE, SERVER_CORE, Server, free_address, start as run, version};

const SETUP: &str = "1 worker, open_file_cache, sendfile, access_log buffer=64k, stub_status, upstream keepalive 64, keepalive_requests unlimited";

/// The server under test.
pub(crate) fn start(files: &Files, upstream: SocketAddr) -> anyhow::Result<Server> {
    let Some(version) = version("nginx", "-v") else {
        return Ok(Server::missing("nginx"));
    };
    let folder = files.folder_of("nginx")?;
    let (http, https, status) = (free_address()?, free_address()?, free_address()?);
    let config = format!(
        "{common}
         upstream up {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
         server {{
           listen {http} backlog=1024; listen {https} ssl http2 backlog=1024;
           ssl_certificate {certificate}; ssl_certificate_key {key};
           ssl_protocols TLSv1.2 TLSv1.3;
           root {site};
           location /proxy/ {{
             proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\";
             proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;
           }}
         }}
         server {{ listen {status}; location / {{ stub_status; }} }}
       }}",
        common = common(files, &folder),
        certificate = text(&files.certificate()),
        key = text(&files.key()),
        site = text(&files.site()),
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, config)?;
    let (pid, keeper) = run(
        SERVER_CORE,
        &["nginx", "-c", &text(&path), "-p", &text(&folder)],
        &[],
        &folder,
        http,
    )?;
    Ok(Server {
        name: "nginx",
        version,
        setup: SETUP,
        http: Some(http),
        https: Some(https),
        gaps: vec![(Case::Http3, "this version has no HTTP/3")],
        pid: Some(pid),
        _keeper: Some(keeper),
    })
}

/// What every proxy forwards to: answers from memory, on the core of the loads.
pub(crate) fn upstream(files: &Files) -> anyhow::Result<Server> {
    let folder = files.folder_of("upstream")?;
    let http = free_address()?;
    let body = "0123456789abcdef".repeat(64);
    let config = format!(
        "{common} server {{ listen {http}; access_log off; default_type application/octet-stream; location / {{ return 200 \"{body}\"; }} }} }}",
        common = common(files, &folder),
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, config)?;
    let (pid, keeper) = run(
        LOAD_CORE,
        &["nginx", "-c", &text(&path), "-p", &text(&folder)],
        &[],
        &folder,
        http,
    )?;
    Ok(Server {
        name: "upstream",
        version: String::new(),
        setup: "",
        http: Some(http),
        https: None,
        gaps: Vec::new(),
        pid: Some(pid),
        _keeper: Some(keeper),
    })
}

fn common(files: &Files, folder: &std::path::Path) -> String {
    let _ = files;
    let folder = text(folder);
    format!(
        "daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
         events {{ worker_connections 16384; }}
         http {{
           default_type application/octet-stream;
           client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
           fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
           access_log {folder}/access.log combined buffer=64k flush=1s;
           sendfile on; tcp_nopush on; tcp_nodelay on;
           open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;
           keepalive_timeout 60s; keepalive_requests 1000000000; http2_max_requests 1000000000;
        "
    )
}
