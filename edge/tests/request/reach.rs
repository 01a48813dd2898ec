//! Where a site's requests may be sent: never to what only the edge should reach.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use helix_edge::forward::Reachable;
use serde_json::{Value, json};

use crate::support::{Edge, PATIENCE};
use crate::upstream::{HOST, Upstream, forward_by, forward_to, ok};

fn ask(edge: &Edge) -> u16 {
    let mut client = edge.client();
    client.send(format!("GET /api/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let response = client.response();
    let text = response.text();
    for told in ["127.", "::1", "address", "allow"] {
        assert!(!text.contains(told), "the client learns too much: {text}");
    }
    response.status
}

/// A listener that counts who connects.
fn trap(addr: &str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(addr).unwrap();
    let addr = listener.local_addr().unwrap();
    let caught = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&caught);
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            count.fetch_add(1, Ordering::AcqRel);
        }
    });
    (addr, caught)
}

/// One address of each special range, however it is written, with `PORT` for a port of this machine.
const FORBIDDEN: [&str; 31] = [
    "http://0.0.0.0:PORT",
    "http://0.1.2.3",
    "http://10.0.0.1",
    "http://100.64.0.1",
    "http://127.0.0.1:PORT",
    "http://127.255.255.254:PORT",
    "http://169.254.169.254",
    "http://172.16.0.1",
    "http://192.0.0.8",
    "http://192.0.2.1",
    "http://192.88.99.1",
    "http://192.168.0.1",
    "http://198.18.0.1",
    "http://198.51.100.1",
    "http://203.0.113.1",
    "http://224.0.0.1",
    "http://240.0.0.1",
    "http://255.255.255.255",
    "http://[::]:PORT",
    "http://[::1]:PORT",
    "http://[::127.0.0.1]:PORT",
    "http://[::ffff:127.0.0.1]:PORT",
    "http://[::ffff:a9fe:a9fe]",
    "http://[64:ff9b::7f00:1]:PORT",
    "http://[100::1]",
    "http://[2001::1]",
    "http://[2001:db8::1]",
    "http://[2002:7f00:1::]",
    "http://[fc00::1]",
    "http://[fe80::1]",
    "http://localhost:PORT",
];

/// What some resolver or parser reads as an address of this machine; none of it is an address that can be deployed.
const MISWRITTEN: [&str; 12] = [
    "http://2130706433",
    "http://0x7f000001",
    "http://0x7f.0.0.1",
    "http://0177.0.0.1",
    "http://127.1",
    "http://127.0.1",
    "http://127.0.0.1.",
    "http://127.0.0.1@1.1.1.1",
    "http://[::1%lo]",
    "http://::1",
    "http://127.0.0.1/metrics",
    "file:///etc/passwd",
];

#[test]
fn no_special_address_is_connected_to_unless_the_operator_allows_it() {
    let (addr, caught) = trap("127.0.0.1:0");
    let edge = Edge::reaching(Reachable::default());
    for address in FORBIDDEN {
        let address = address.replace("PORT", &addr.port().to_string());
        let more =
            json!({ "addresses": [address], "health": { "path": "/", "interval": "500ms" } });
        forward_to(&edge, addr, &more);
        assert_eq!(ask(&edge), 502, "{address}");
    }
    assert_eq!(caught.load(Ordering::Acquire), 0);
}

#[test]
fn an_address_is_written_plainly_or_not_at_all() {
    for address in MISWRITTEN {
        let parsed = address.parse::<helix_routing::routes::Address>();
        assert!(parsed.is_err(), "{address}: {parsed:?}");
    }
}

#[test]
fn the_edge_itself_is_no_upstream_although_its_machine_is_allowed() {
    let (admin, caught) = trap("127.0.0.1:0");
    let allow = vec!["127.0.0.0/8".parse().unwrap(), "0.0.0.0/8".parse().unwrap()];
    let own = vec![admin];
    let edge = Edge::reaching(Reachable { allow, own });
    for address in [admin, edge.addr] {
        for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
            let more = json!({ "addresses": [format!("http://{host}:{}", address.port())] });
            forward_to(&edge, address, &more);
            assert_eq!(ask(&edge), 502, "{host} {address}");
        }
    }
    assert_eq!(caught.load(Ordering::Acquire), 0);
    // Another server on the same machine is fine.
    let upstream = Upstream::answering(|_| ok("a"));
    forward_to(&edge, upstream.addr, &json!({}));
    assert_eq!(ask(&edge), 200);
}

#[test]
fn a_check_goes_where_requests_go_whatever_host_it_names() {
    let upstream = Upstream::answering(|seen| {
        if seen.head.starts_with("GET /well ") {
            ok("well")
        } else {
            ok("a")
        }
    });
    let port = upstream.addr.port();
    let (_, caught) = trap(&format!("127.0.0.2:{port}"));
    let allow = vec!["127.0.0.1/32".parse().unwrap()];
    for host in ["127.0.0.2", "2130706434", "0x7f.2", "api.internal"] {
        let edge = Edge::reaching(Reachable {
            allow: allow.clone(),
            ..Reachable::default()
        });
        let before = upstream.seen().len();
        let more = json!({ "host": host, "health": { "path": "/well", "interval": "500ms" } });
        forward_to(&edge, upstream.addr, &more);
        assert_eq!(ask(&edge), 200);
        let until = Instant::now() + PATIENCE;
        let checked = loop {
            let seen = upstream.seen().split_off(before);
            let mut checks = seen.into_iter();
            if let Some(check) = checks.find(|seen| seen.head.starts_with("GET /well ")) {
                break check;
            }
            assert!(Instant::now() < until, "{host} is never checked");
            std::thread::park_timeout(Duration::from_millis(5));
        };
        assert_eq!(checked.fields("host"), [host]);
    }
    assert_eq!(caught.load(Ordering::Acquire), 0);
}

#[test]
fn what_failed_is_told_to_the_log_and_not_to_the_client() {
    let routes = |more: Value| {
        json!({
            "upstreams": { "api": more },
            "forwards": [{ "path": "/api/*", "upstream": "api" }],
        })
    };
    let edge = Edge::reaching(Reachable::default());
    let addresses = ["http://169.254.169.254", "http://no-such-name.invalid:81"];
    for address in addresses {
        forward_by(&edge, &routes(json!({ "addresses": [address] })));
        assert_eq!(ask(&edge), 502, "{address}");
    }
}
