//! What is compressed goes through as it is: nobody here unpacks what unpacks to a thousand times its size.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::elsewhere::{Elsewhere, Settings};
use crate::support::Client;
use crate::upstream::{HOST, Upstream};

/// What a bomb would be once unpacked: far more than the edge may grow by.
const UNPACKED: usize = 64 * 1024 * 1024;
/// More than the bombs and the buffers on their way, far less than one bomb unpacked.
const MAX_GROWN_BYTES: u64 = 8 * 1024 * 1024;
const TIMES: usize = 20;

fn bomb() -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    let part = vec![0; 1024 * 1024];
    for _ in 0..UNPACKED / part.len() {
        packed.write_all(&part).unwrap();
    }
    packed.finish().unwrap()
}

#[test]
fn compressed_bodies_pass_as_they_are_in_both_directions() {
    let name = "bombs::compressed_bodies_pass_as_they_are_in_both_directions";
    let packed = bomb();
    let body = packed.clone();
    let upstream = Upstream::answering(move |seen| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nX-Same: {}\r\nContent-Length: {}\r\n\r\n",
            seen.body == body && seen.fields("content-encoding") == ["gzip"],
            body.len()
        );
        [head.as_bytes(), &body].concat()
    });
    let settings = Settings {
        upstream: Some(upstream.addr),
        ..Settings::default()
    };
    let Some(edge) = Elsewhere::start(name, &settings) else {
        return;
    };
    let mut client = Client::connect(edge.at.plain);
    let mut ask = || {
        let head = format!(
            "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            packed.len()
        );
        client.send([head.as_bytes(), &packed].concat());
        let response = client.response();
        assert_eq!(response.header("x-same"), Some("true"));
        assert_eq!(response.header("content-encoding"), Some("gzip"));
        assert!(response.body == packed, "the body is another one");
    };
    ask();
    let before = edge.resident();
    let ((), most) = edge.most_resident(|| (0..TIMES).for_each(|_| ask()));
    let grown = most.saturating_sub(before);
    eprintln!(
        "{TIMES} bombs of {} KiB, {UNPACKED} bytes unpacked, each way: {} KiB more",
        packed.len() / 1024,
        grown / 1024
    );
    assert!(grown < MAX_GROWN_BYTES, "{grown} bytes more");
}
