//! Who is refused while still sending sees why, and its connection goes on.

use helix_routing::id::Digest;
use helix_service::digest::sha256;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::world::World;

/// More than the buffers of a socket take, so that a sender notices when nobody reads.
const LENGTH: usize = 24 * 1024 * 1024;

fn part(world: &World, digest: &Digest) -> String {
    format!(
        "PATCH /v1/projects/shop/blobs/{digest} HTTP/1.1\r\nhost: origin\r\nauthorization: Bearer {}\r\n\
         content-length: {LENGTH}\r\nupload-offset: 7\r\nupload-length: {}\r\n\r\n",
        world.token,
        LENGTH + 7
    )
}

async fn answer(stream: &mut BufReader<TcpStream>) -> (String, String) {
    let (mut status, mut length) = (String::new(), 0);
    stream.read_line(&mut status).await.unwrap();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (status, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn a_refusal_is_seen_while_the_body_is_still_sent_and_the_connection_goes_on() {
    let world = World::start().await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let mut stream = BufReader::new(stream);
    let head = part(&world, &sha256(b"other"));
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![1; 1024]).await.unwrap();
    let (status, body) = answer(&mut stream).await;
    assert!(status.starts_with("HTTP/1.1 409"), "{status}{body}");
    assert!(body.contains("wrong-offset"), "{body}");

    stream.write_all(&vec![1; LENGTH - 1024]).await.unwrap();
    let next = format!(
        "GET /v1/projects HTTP/1.1\r\nhost: origin\r\nauthorization: Bearer {}\r\n\r\n",
        world.token
    );
    stream.write_all(next.as_bytes()).await.unwrap();
    let (status, body) = answer(&mut stream).await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}{body}");
}
