//! A client that asks now and then and notes how long it waits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::crowd::HONEST;
use crate::support::{LIVE, PATIENCE};

/// Between two requests: some hundred each second, which leave the machine to others.
const PAUSE: Duration = Duration::from_millis(2);

trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

/// Its 99th percentile over `time`. Every request must be answered as it should.
pub(crate) fn p99(to: SocketAddr, tls: Option<&Arc<ClientConfig>>, time: Duration) -> Duration {
    let mut stream = connect(to, tls);
    let (until, mut took) = (Instant::now() + time, Vec::new());
    let expected = format!("text of {LIVE}\n");
    while Instant::now() < until {
        let started = Instant::now();
        stream
            .write_all(b"GET /a.txt HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            .unwrap();
        let mut received = Vec::new();
        while !received.ends_with(expected.as_bytes()) {
            let mut part = [0; 4096];
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "an honest client was cut");
            received.extend_from_slice(&part[..read]);
        }
        took.push(started.elapsed());
        std::thread::sleep(PAUSE);
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

fn connect(to: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Box<dyn Both> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(HONEST, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    match tls {
        None => Box::new(stream),
        Some(tls) => {
            let name = "shop.example".try_into().unwrap();
            let session = ClientConnection::new(Arc::clone(tls), name).unwrap();
            Box::new(StreamOwned::new(session, stream))
        }
    }
}
