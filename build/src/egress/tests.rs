//! The proxy over real sockets.

use tokio::net::TcpListener;

use super::*;

async fn ask(socket: &Path, head: &str) -> String {
    let mut client = UnixStream::connect(socket).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(10), client.read_to_end(&mut answer));
    read.await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

/// A server that says hello to whoever comes.
async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut start = [0; 4];
            client.read_exact(&mut start).await.unwrap();
            client
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello")
                .await
                .unwrap();
        }
    });
    port
}

#[tokio::test]
async fn hosts_on_the_list_are_reached_and_all_others_named() {
    let (folder, port) = (tempfile::tempdir().unwrap(), server().await);
    let socket = folder.path().join("egress.sock");
    let config = EgressConfig {
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        ports: vec![port],
    };
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let tell = move |text: &str| heard.lock().unwrap().push(text.to_owned());
    let egress = Egress::start(&socket, &["localhost".to_owned()], &config, tell).unwrap();

    let answer = ask(
        &socket,
        &format!("GET http://localhost:{port}/ HTTP/1.1\r\n\r\n"),
    )
    .await;
    assert!(answer.ends_with("hello"), "{answer}");
    let answer = ask(
        &socket,
        &format!("CONNECT localhost:{port} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
        "{answer}"
    );
    for _ in 0..2 {
        let answer = ask(&socket, "CONNECT evil.test:443 HTTP/1.1\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains("evil.test"),
            "{answer}"
        );
    }
    let answer = ask(&socket, "CONNECT localhost:1 HTTP/1.1\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("port 1"),
        "{answer}"
    );
    assert!(
        ask(&socket, "nonsense\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 400")
    );
    assert_eq!(egress.refused(), ["evil.test", "localhost"]);
    assert_eq!(told.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_by_its_address() {
    let (folder, port) = (tempfile::tempdir().unwrap(), server().await);
    let socket = folder.path().join("egress.sock");
    let config = EgressConfig {
        allow: Vec::new(),
        ports: vec![port],
    };
    let _egress = Egress::start(&socket, &["localhost".to_owned()], &config, |_| ()).unwrap();
    let answer = ask(
        &socket,
        &format!("CONNECT localhost:{port} HTTP/1.1\r\n\r\n"),
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("no address"),
        "{answer}"
    );
}
