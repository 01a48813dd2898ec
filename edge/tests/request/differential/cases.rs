//! Requests at random: well-formed ones, ones that are wrong in ways that have led to smuggling, and damaged ones.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::NEXT;

/// One in so many parts of a request is spelled in a way that should not pass.
const ODD: f64 = 0.06;
/// One in so many requests is damaged byte by byte besides.
const DAMAGED: f64 = 0.35;

const METHODS: &[&str] = &[
    "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND",
    "M-SEARCH",
];
const ODD_METHODS: &[&str] = &[
    "get", "BREW", "CONNECT", "G@T", "", " GET", "GET\t", "GE\0T", "PRI",
];
const TARGETS: &[&str] = &[
    "/",
    "/a.txt",
    "/a?b=c",
    "/a%20b?c=%",
    "/a//b/../c",
    "/;a=b,c",
    "/a|b^c{d}",
    "/?",
    "/a??b?",
    "/%00",
    "http://shop.example/x?y",
    "http://shop.example",
    "https://shop.example/",
];
const ODD_TARGETS: &[&str] = &[
    "*",
    "a",
    "",
    "//x",
    "/a b",
    "/\u{e9}",
    "/a#b",
    "http://other.example/",
    "http://u@shop.example/",
    "/\0",
    "/\\a",
    "/\"",
    "/<>",
    "ftp://shop.example/",
    "shop.example:80",
    "/\t",
];
const VERSIONS: &[&str] = &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"];
const ODD_VERSIONS: &[&str] = &[
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/0.9",
    "http/1.1",
    "HTTP/1.1 ",
    "HTTP/11",
    "HTTP/1,1",
    "",
    "HTTP/1.1\t",
    "HTTPS/1.1",
];
const HOSTS: &[&str] = &[
    "Host: shop.example",
    "host:shop.example",
    "HOST:\tshop.example \t",
];
const ODD_HOSTS: &[&str] = &[
    "Host: a, b",
    "Host: shop.example\r\nHost: shop.example",
    "X: no host",
    "Host:",
    "Host : shop.example",
    "Host: u@shop.example",
    "Host: shop.example/x",
    " Host: shop.example",
    "Host: sh\0p",
    "Host",
];
const FIELDS: &[&str] = &[
    "Accept: */*",
    "Empty:",
    "Cookie: a=b; c=\"d\"",
    "Connection: keep-alive",
    "Connection: close",
    "Connection: x, Keep-Alive",
    "Connection: Upgrade\r\nUpgrade: websocket",
    "Upgrade: h2c",
    "TE: trailers",
    "Expect: 100-continue",
    "X-Colons: a:b::c",
    "!#$%&'*+-.^`|~: odd but legal",
    "X-Tab:\ta\tb\t",
    "Accept-Encoding: gzip",
    "If-None-Match: \"x\"",
    "Range: bytes=0-1",
    "Trailer: X-Sum",
    "Keep-Alive: timeout=5",
    "Via: 1.0 fred",
    "Content-Type: text/plain",
    "Proxy-Connection: keep-alive",
];
const ODD_FIELDS: &[&str] = &[
    "X: 1\r\n folded",
    "X: 1\r\n\tfolded",
    "X: 1\nY: 2",
    "X: 1\rY: 2",
    "X_Y: z",
    "X Y: z",
    "X: a\0b",
    "X: a\u{b}b",
    ": no name",
    "no colon",
    "X\t: z",
    "X: \u{7f}",
    "(X): y",
    "X: 1\r\r",
    "\r\nX: behind the end",
    "X\u{e9}: y",
];
const ODD_LENGTHS: &[&str] = &[
    "Content-Length: +{}",
    "Content-Length: {}, {}",
    "Content-Length: {} {}",
    "Content-Length: 0x{}",
    "Content-Length: -{}",
    "Content-Length: {}.0",
    "Content-Length: {}\u{b}",
    "Content-Length : {}",
    "Content_Length: {}",
    " Content-Length: {}",
    "Content-Length\0: {}",
    "Content-Length:",
    "Content-Length: {}\r\nContent-Length: {}",
    "Content-Length: {}\r\nContent-Length: 1",
    "Content-Length: 1{}",
    "Content-Length: {}\r\n 5",
    "Content-Length:\r\n {}",
    "Content-Length: \"{}\"",
    "Content-Length: {};",
    "Content-Length: 99999999999999999999{}",
    "Content-Length\u{b}: {}",
];
const LENGTHS: &[&str] = &[
    "Content-Length: {}",
    "content-length:{}",
    "CONTENT-LENGTH:  {}\t",
    "Content-Length: 00{}",
];
const CODINGS: &[&str] = &[
    "Transfer-Encoding: chunked",
    "transfer-encoding:chunked",
    "TRANSFER-ENCODING:\tChunked \t",
];
const ODD_CODINGS: &[&str] = &[
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked\0",
    "Transfer-Encoding:\u{b}chunked",
    "Transfer-Encoding: , chunked",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding : chunked",
    "Transfer_Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding:",
    " Transfer-Encoding: chunked",
    "X: 1\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 3",
    "Content-Length: 3\r\nTransfer-Encoding: chunked",
    "Transfer-\rEncoding: chunked",
    "Transfer-Encoding: chun\r\n ked",
];
const EXTENSIONS: &[&str] = &["", "", "", "", ";a", ";a=b", ";a=\"b c\"", ";a=b;c"];
const ODD_EXTENSIONS: &[&str] = &[
    " ", " ;a", ";", ";a=", ";\0", ";a\nb", "\r", ";\u{e9}", "\t", ",", ";a=\"", "; a", ";a =b",
];
const TRAILERS: &[&str] = &[
    "",
    "",
    "",
    "X-Sum: 1\r\n",
    "A:\r\nB: c\r\n",
    "Expires: now\r\n",
];
const ODD_TRAILERS: &[&str] = &[
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Host: other.example\r\n",
    " X: y\r\n",
    "X : y\r\n",
    "X: y\n",
    "no colon\r\n",
    "X_Y: z\r\n",
    "X: a\0\r\n",
    "X: 1\r\n folded\r\n",
];
/// Bytes that parsers stumble over.
const SHARP: &[u8] = b"\r\n\0 \t:;,\x0b\x0c\x7f\x80\xff\"'0a_/?#%=+-";

/// The case of this seed, with [`NEXT`] behind it.
pub(super) fn case(seed: u64) -> Vec<u8> {
    let mut maker = Maker(StdRng::seed_from_u64(seed));
    let mut bytes = maker.request();
    if maker.0.random_bool(DAMAGED) {
        for _ in 0..maker.0.random_range(1..4) {
            maker.damage(&mut bytes);
        }
    }
    bytes.extend_from_slice(NEXT);
    bytes
}

/// Lengths of the pieces in which the case of this seed arrives.
pub(super) fn steps(seed: u64) -> [usize; 3] {
    let mut random = StdRng::seed_from_u64(!seed);
    let whole = random.random_bool(0.3);
    std::array::from_fn(|_| {
        if whole {
            usize::MAX
        } else {
            random.random_range(1..60)
        }
    })
}

struct Maker(StdRng);

impl Maker {
    fn pick(
        &mut self,
        usual: &'static [&'static str],
        odd: &'static [&'static str],
    ) -> &'static str {
        let list = if self.0.random_bool(ODD) { odd } else { usual };
        list.choose(&mut self.0).unwrap()
    }

    fn request(&mut self) -> Vec<u8> {
        let (method, target) = (
            self.pick(METHODS, ODD_METHODS),
            self.pick(TARGETS, ODD_TARGETS),
        );
        let version = self.pick(VERSIONS, ODD_VERSIONS);
        let mut lines = vec![self.pick(HOSTS, ODD_HOSTS).to_owned()];
        for _ in 0..self.0.random_range(0..5) {
            lines.push(self.pick(FIELDS, ODD_FIELDS).to_owned());
        }
        let body = self.body(&mut lines);
        let end = lines.len();
        for at in 0..end {
            lines.swap(at, self.0.random_range(0..end));
        }
        let mut bytes = latin1(&format!(
            "{method} {target} {version}\r\n{}\r\n\r\n",
            lines.join("\r\n")
        ));
        bytes.extend(body);
        bytes
    }

    /// A body, framed by what is added to the lines of the head.
    fn body(&mut self, lines: &mut Vec<String>) -> Vec<u8> {
        let data = self.data();
        match self.0.random_range(0..10) {
            0..3 => Vec::new(),
            3..6 => {
                let line = self.pick(LENGTHS, ODD_LENGTHS);
                lines.push(line.replace("{}", &data.len().to_string()));
                data
            }
            _ => {
                lines.push(self.pick(CODINGS, ODD_CODINGS).to_owned());
                self.chunks(&data)
            }
        }
    }

    fn data(&mut self) -> Vec<u8> {
        if self.0.random_bool(0.3) {
            return b"GET /hidden HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec();
        }
        let length = self.0.random_range(0..40);
        (0..length).map(|_| self.0.random()).collect()
    }

    fn chunks(&mut self, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = data;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(self.0.random_range(1..=rest.len()));
            rest = after;
            self.size_line(chunk.len(), &mut bytes);
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(if self.0.random_bool(ODD / 4.0) {
                b"\n"
            } else {
                b"\r\n"
            });
        }
        self.size_line(0, &mut bytes);
        bytes.extend(latin1(self.pick(TRAILERS, ODD_TRAILERS)));
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    fn size_line(&mut self, size: usize, bytes: &mut Vec<u8>) {
        let size = match self.0.random_range(0..40) {
            0 => format!("0x{size:x}"),
            1 => format!("+{size:x}"),
            2 => format!("{size:020x}"),
            3 => format!(" {size:x}"),
            4..12 => format!("{size:X}"),
            12..16 => format!("00{size:x}"),
            _ => format!("{size:x}"),
        };
        bytes.extend(latin1(&format!(
            "{size}{}\r\n",
            self.pick(EXTENSIONS, ODD_EXTENSIONS)
        )));
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let at = self.0.random_range(0..bytes.len());
        let sharp = *SHARP.choose(&mut self.0).unwrap();
        match self.0.random_range(0..6) {
            0 => bytes[at] = sharp,
            1 => bytes.insert(at, sharp),
            2 => drop(bytes.remove(at)),
            3 => bytes[at] ^= 1 << self.0.random_range(0..8),
            4 => {
                let end = bytes.len().min(at + self.0.random_range(1..12));
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let other = self.0.random_range(0..bytes.len());
                bytes.swap(at, other);
            }
        }
        if bytes.is_empty() {
            bytes.push(b'\r');
        }
    }
}

/// Characters as single bytes, which is what they stand for here.
fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|one| u8::try_from(u32::from(one)).unwrap())
        .collect()
}
