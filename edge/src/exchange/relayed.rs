//! The head of a response as it came from an upstream, and what becomes of it on its way to the client.
//!
//! A protocol that writes heads as HTTP/1.1 does takes the lines as they are; others make the same of it with
//! [`Relayed::to_head`]. Which lines pass is decided by whoever forwards.

use std::fmt;

use helix_framing::{Line, Reply};
use http::header::HeaderName;
use http::{HeaderValue, StatusCode};

use super::ResponseHead;

/// Whether a field of this name, in any case, reaches the client.
type Passes<'a> = &'a (dyn Fn(&[u8]) -> bool + Send + Sync);

/// Borrowed for one response.
#[derive(Clone, Copy)]
pub struct Relayed<'a> {
    reply: &'a Reply,
    passes: Passes<'a>,
    own: &'a [Own],
    /// Of the names that are replaced: a bit for each length.
    replaced: u64,
}

impl fmt::Debug for Relayed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relayed")
            .field("reply", self.reply)
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

/// A field that this edge writes.
#[derive(Clone, Debug)]
pub struct Own {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
    /// Whether the upstream's of this name stay beside it.
    pub beside: bool,
}

impl<'a> Relayed<'a> {
    /// As it came.
    #[must_use]
    pub fn new(reply: &'a Reply) -> Self {
        Self {
            reply,
            passes: &|_| true,
            own: &[],
            replaced: 0,
        }
    }

    /// Only with what `passes`, and with what this edge writes itself.
    #[must_use]
    pub fn marked(self, passes: Passes<'a>, own: &'a [Own]) -> Self {
        let replacing = own.iter().filter(|own| !own.beside);
        Self {
            reply: self.reply,
            passes,
            own,
            replaced: replacing.fold(0, |bits, own| bits | bit(own.name.as_str().len())),
        }
    }

    /// As it came.
    #[must_use]
    pub const fn reply(&self) -> &'a Reply {
        self.reply
    }

    /// Its status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.reply.status
    }

    /// What its `Content-Length` says.
    #[must_use]
    pub const fn length(&self) -> Option<u64> {
        self.reply.length
    }

    /// Its fields, names in any case.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let passed = self.reply.lines().filter(|line| self.stays(line.name));
        let own = |own: &'a Own| Line::new(own.name.as_str().as_bytes(), own.value.as_bytes());
        passed.chain(self.own.iter().map(own))
    }

    /// The same with its fields in a map.
    #[must_use]
    pub fn to_head(&self) -> ResponseHead {
        let mut headers = self.reply.headers();
        let gone: Vec<HeaderName> = headers
            .keys()
            .filter(|name| !self.stays(name.as_str().as_bytes()))
            .cloned()
            .collect();
        for name in gone {
            headers.remove(name);
        }
        for own in self.own {
            headers.append(&own.name, own.value.clone());
        }
        ResponseHead {
            status: self.reply.status,
            headers,
        }
    }

    fn stays(&self, name: &[u8]) -> bool {
        let is_name = |own: &Own| own.name.as_str().as_bytes().eq_ignore_ascii_case(name);
        let replaced = |own: &Own| !own.beside && is_name(own);
        let may_be = self.replaced & bit(name.len()) != 0;
        (self.passes)(name) && !(may_be && self.own.iter().any(replaced))
    }
}

/// For names too long to tell apart the last one.
fn bit(length: usize) -> u64 {
    1 << length.min(63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use helix_framing::parse_reply;

    #[test]
    fn lines_and_map_say_the_same() {
        let head = b"HTTP/1.1 404 Nope\r\nX-Own: a\r\nDrop: b\r\nx-own: c\r\nMark: d\r\nTimes: e\r\nContent-Length: 3\r\n\r\n";
        let reply = parse_reply(&Bytes::from_static(head), false).unwrap();
        let own = |name: &'static str, beside| Own {
            name: HeaderName::from_static(name),
            value: HeaderValue::from_static("ours"),
            beside,
        };
        let own = [own("mark", false), own("times", true)];
        let relayed = Relayed::new(&reply).marked(&|name| name != b"Drop" && name != b"drop", &own);
        let lines: Vec<_> = relayed
            .lines()
            .map(|line| (line.name.to_ascii_lowercase(), line.value.to_vec()))
            .collect();
        let map = relayed.to_head().headers;
        let mut of_map: Vec<_> = map
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec()))
            .collect();
        let mut sorted = lines.clone();
        sorted.sort();
        of_map.sort();
        assert_eq!(sorted, of_map);
        assert_eq!(
            lines.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>(),
            [
                b"x-own".as_slice(),
                b"x-own",
                b"times",
                b"content-length",
                b"mark",
                b"times"
            ]
        );
        assert_eq!(
            (relayed.status(), relayed.length()),
            (StatusCode::NOT_FOUND, Some(3))
        );
    }
}
