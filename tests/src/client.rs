//! A small HTTP/1.1 client over one kept-alive connection.
//!
//! It is deliberately not the client library that our own programs use, so that both ends cannot share a
//! mistake. It retries nothing and follows nothing: what the server did is what the test sees.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use helix_routing::id::Digest;
use helix_service::digest::sha256;

/// Longer than any single answer takes on a loaded machine; a hang is a failure.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A connection to one server, opened when first used and again after it was closed.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

/// One answer, whole.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Names in lower case, with their values, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The digest of the body.
    #[must_use]
    pub fn digest(&self) -> Digest {
        sha256(&self.body)
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The `Host`.
    pub host: &'a str,
    /// More headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body; none is sent when empty.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// `GET target` of `host`.
    #[must_use]
    pub const fn get(host: &'a str, target: &'a str) -> Self {
        Self {
            method: "GET",
            target,
            host,
            headers: &[],
            body: &[],
        }
    }
}

impl Client {
    /// A client of `url`, which is `http://address:port` with nothing after it that counts.
    ///
    /// # Panics
    /// When `url` is anything else.
    #[must_use]
    pub fn of(url: &str) -> Self {
        let authority = url.strip_prefix("http://").expect("a plain HTTP address");
        let authority = authority
            .split('/')
            .next()
            .unwrap()
            .replace("localhost", "127.0.0.1");
        Self {
            address: authority.parse().expect("an address and a port"),
            stream: None,
        }
    }

    /// Sends one request and reads its answer to the last byte.
    ///
    /// # Errors
    /// When the connection fails or the answer is not HTTP/1.1. The next request opens a new connection.
    pub fn send(&mut self, request: Request<'_>) -> io::Result<Response> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        write_request(stream.get_mut(), request)?;
        let response = read_response(&mut stream, request.method)?;
        if response.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        Ok(response)
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.address, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }
}

fn write_request(stream: &mut TcpStream, request: Request<'_>) -> io::Result<()> {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nhost: {}\r\n",
        request.method, request.target, request.host
    );
    for (name, value) in request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !request.body.is_empty() || matches!(request.method, "POST" | "PATCH") {
        head.push_str(&format!("content-length: {}\r\n", request.body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(request.body)
}

fn read_response(stream: &mut BufReader<TcpStream>, method: &str) -> io::Result<Response> {
    let status_line = line(stream)?;
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| malformed(&status_line))?;
    let mut headers = Vec::new();
    loop {
        let text = line(stream)?;
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(':').ok_or_else(|| malformed(&text))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response {
        status,
        headers,
        body: Vec::new(),
    };
    if method != "HEAD" && !matches!(status, 204 | 304) {
        response.body = read_body(stream, &response)?;
    }
    Ok(response)
}

fn read_body(stream: &mut BufReader<TcpStream>, response: &Response) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = response.header("content-length") {
        let length: u64 = length.parse().map_err(|_| malformed(length))?;
        stream.take(length).read_to_end(&mut body)?;
        if (body.len() as u64) < length {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the body ended early",
            ));
        }
    } else if response.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = line(stream)?;
            let size = u64::from_str_radix(&size, 16).map_err(|_| malformed(&size))?;
            stream.take(size).read_to_end(&mut body)?;
            line(stream)?;
            if size == 0 {
                break;
            }
        }
    } else {
        stream.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut text = String::new();
    if stream.read_line(&mut text)? == 0 {
        return Err(io::Error::new(
            ErrorKind::UnexpectedEof,
            "the server closed the connection",
        ));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn malformed(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("not HTTP/1.1: {text:?}"))
}
