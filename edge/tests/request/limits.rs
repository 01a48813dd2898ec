//! What a client may not use up, and how it ends.

use std::time::{Duration, Instant};

use helix_edge::forward::Reachable;
use helix_edge::limits::Limits;
use helix_edge::listener::{self, ListenerConfig};
use helix_service::shutdown::Shutdown;

use crate::support::{Client, Edge, LIVE, PATIENCE, get};

const SHORT: Duration = Duration::from_millis(300);

fn impatient() -> Edge {
    Edge::with(Limits {
        head_deadline: SHORT,
        idle_deadline: SHORT,
        ..Limits::default()
    })
}

#[test]
fn a_head_that_drips_is_cut_at_its_deadline_on_fresh_and_on_used_connections() {
    let edge = impatient();
    for used in [false, true] {
        let mut client = edge.client();
        if used {
            client.send(get("/a.txt"));
            assert_eq!(client.response().status, 200);
        }
        let started = Instant::now();
        client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n");
        let response = client.response();
        assert_eq!(
            (response.status, response.header("connection")),
            (408, Some("close"))
        );
        assert!(client.is_closed());
        assert!(started.elapsed() >= SHORT && started.elapsed() < PATIENCE);
    }
    assert_eq!(
        edge.metrics
            .heads_refused
            .with_label_values(&["head_too_slow"])
            .get(),
        2
    );
}

#[test]
fn connections_that_say_nothing_are_closed_without_a_word() {
    let edge = impatient();
    assert!(edge.client().is_closed());
    let mut used = edge.client();
    used.send(get("/a.txt"));
    assert_eq!(used.response().status, 200);
    assert!(used.is_closed());
}

#[test]
fn an_endless_head_is_refused_when_it_is_too_large() {
    let edge = Edge::start();
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n");
    let line = format!("X: {}\r\n", "y".repeat(1000));
    while client.try_send(&line)
        && edge
            .metrics
            .heads_refused
            .with_label_values(&["head_too_large"])
            .get()
            == 0
    {}
    assert_eq!(client.response().status, 431);
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let edge = Edge::with(Limits {
        write_stall: SHORT,
        ..Limits::default()
    });
    let mut client = edge.client();
    // Far more than the sockets' buffers hold.
    client.send(get("/big.bin").repeat(8));
    edge.until_idle();
}

#[test]
fn a_thousand_connections_are_served_side_by_side() {
    let edge = Edge::start();
    let mut clients: Vec<_> = (0..1000).map(|_| edge.client()).collect();
    for client in &mut clients {
        client.send(get("/a.txt"));
    }
    for client in &mut clients {
        assert_eq!(client.response().text(), format!("text of {LIVE}\n"));
    }
    assert_eq!(edge.metrics.connections.get(), 1000);
    drop(clients);
    edge.until_idle();
}

#[test]
fn connections_over_a_limit_are_closed_and_counted() {
    let edge = Edge::with(Limits {
        connections_per_address: 2,
        ..Limits::default()
    });
    let mut held: Vec<_> = (0..2).map(|_| edge.client()).collect();
    for client in &mut held {
        client.send(get("/a.txt"));
        assert_eq!(client.response().status, 200);
    }
    let mut refused = edge.client();
    assert!(refused.is_closed());
    assert_eq!(
        edge.metrics
            .connections_refused
            .with_label_values(&["address"])
            .get(),
        1
    );
    drop(held);
    edge.until_idle();
    assert_eq!(edge.get("/a.txt").status, 200);
}

#[test]
fn an_address_that_is_taken_is_an_error_that_names_it() {
    let edge = Edge::start();
    let config = ListenerConfig {
        addr: edge.addr,
        threads: 1,
        edge: "fra-2".parse().unwrap(),
        region: "fra".parse().unwrap(),
        access_log: helix_edge::access_log::AccessLogConfig::off(),
        upstreams: Reachable::default(),
        limits: Limits::default(),
        http3: None,
        tls: None,
        lanes: listener::Lanes::default(),
        maintenance: helix_edge::maintenance::Maintenance::default(),
    };
    let (shutdown, _asked) = Shutdown::manual();
    let error =
        listener::serve(config, edge.table.clone(), edge.metrics.clone(), shutdown).unwrap_err();
    assert_eq!(error.to_string(), format!("listen on {}", edge.addr));
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_in_flight_and_closes_the_rest() {
    let edge = Edge::start();
    let mut idle = edge.client();
    idle.send(get("/a.txt"));
    assert_eq!(idle.response().status, 200);
    let mut busy = edge.client();
    busy.send(get("/big.bin"));
    busy.head();
    let mut late = edge.client();
    edge.shutdown.request();
    // On their way when the end was asked for: answered, and the last.
    idle.send(get("/a.txt"));
    late.send(get("/a.txt"));
    for client in [&mut idle, &mut late] {
        assert_eq!(client.response().status, 200);
        assert!(client.is_closed());
    }
    busy.rest_of_big_file();
    assert!(busy.is_closed());
    edge.handle.join().await.unwrap();
    assert!(std::net::TcpStream::connect(edge.addr).is_err());
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let edge = Edge::with(Limits {
        drain_deadline: SHORT,
        ..Limits::default()
    });
    let mut stuck = Client::connect(edge.addr);
    stuck.send(get("/big.bin").repeat(8));
    stuck.head();
    edge.shutdown.request();
    let started = Instant::now();
    edge.handle.join().await.unwrap();
    assert!(started.elapsed() < PATIENCE);
}
