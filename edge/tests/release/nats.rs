//! A nats-server of a test's own, with the accounts of one origin and one edge.

use std::path::Path;
use std::process::{Child, Command, Stdio};

pub(crate) fn start_nats(server: &Path, folder: &Path) -> Child {
    Command::new(server)
        .arg("-c")
        .arg(folder.join("nats.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The accounts an edge gets from its operator: reads of two streams and their snapshots, and its own reports.
pub(crate) fn write_nats_config(folder: &Path, port: u16) {
    let origin = nkeys::KeyPair::new_user();
    let edge = nkeys::KeyPair::new_user();
    std::fs::write(folder.join("origin.seed"), origin.seed().unwrap()).unwrap();
    std::fs::write(folder.join("edge.seed"), edge.seed().unwrap()).unwrap();
    let services = ["KV_g", "KV_r_fra", "OBJ_snap_g", "OBJ_snap_r_fra"]
        .map(|stream| format!("$JS.API.DIRECT.GET.{stream}"));
    let exports: String = services
        .iter()
        .map(|subject| format!("{{service: \"{subject}\", response_type: stream}}\n"))
        .collect();
    let imports: String = services
        .iter()
        .map(|subject| format!("{{service: {{account: ORIGIN, subject: \"{subject}\"}}}}\n"))
        .collect();
    let publish: String = services
        .iter()
        .map(|subject| format!("\"{subject}\", "))
        .collect();
    let config = format!(
        r#"
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{store}", sync_interval: always }}
accounts {{
  ORIGIN {{ jetstream: enabled, users: [{{nkey: {origin}}}]
    exports: [
      {{stream: "edge.g.>"}}
      {{stream: "edge.r.fra.>"}}
      {{service: "rpt.fra.fra-1.>"}}
{exports}    ] }}
  EDGE {{ users: [{{nkey: {edge}, permissions: {{publish: [{publish} "rpt.fra.fra-1.>"], subscribe: ["edge.g.>", "edge.r.fra.>", "_INBOX.>"]}}}}]
    imports: [
      {{stream: {{account: ORIGIN, subject: "edge.g.>"}}}}
      {{stream: {{account: ORIGIN, subject: "edge.r.fra.>"}}}}
      {{service: {{account: ORIGIN, subject: "rpt.fra.fra-1.>"}}, share: true}}
{imports}    ] }}
}}
"#,
        store = folder.join("jetstream").display(),
        origin = origin.public_key(),
        edge = edge.public_key(),
    );
    std::fs::write(folder.join("nats.conf"), config).unwrap();
}
