//! Which representation of a file a client gets (RFC 9110 12.5.3).
//!
//! Pure. The client's weights decide; among those it likes alike, the smallest. A client that says nothing
//! gets the file as it is, and so does one that refuses everything there is: a body is better than none.

use helix_framing::Fields;
use helix_routing::artifact::ContentEncoding;
use http::header::ACCEPT_ENCODING;

use crate::release::Representation;

/// Weights are counted in thousandths.
const FULL: u16 = 1000;

/// The place in `representations`, of which the first is in no coding, of what to send.
#[must_use]
pub fn choose(representations: &[Representation], fields: Fields<'_>) -> usize {
    if representations.len() < 2 {
        return 0;
    }
    let accepted = Accepted::of(fields);
    let mut best = (0, accepted.identity(), u64::MAX);
    for (at, representation) in representations.iter().enumerate() {
        let weight = representation
            .encoding
            .map_or_else(|| accepted.identity(), |encoding| accepted.weight(encoding));
        let better = weight > best.1 || (weight == best.1 && representation.size() < best.2);
        if weight > 0 && better {
            best = (at, weight, representation.size());
        }
    }
    best.0
}

/// What a client said of each coding; none where it said nothing.
#[derive(Debug, Default)]
struct Accepted {
    br: Option<u16>,
    zstd: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    any: Option<u16>,
}

impl Accepted {
    fn of(fields: Fields<'_>) -> Self {
        let mut accepted = Self::default();
        for value in fields.all(&ACCEPT_ENCODING) {
            for item in value.split(|byte| *byte == b',') {
                accepted.take(item);
            }
        }
        accepted
    }

    fn take(&mut self, item: &[u8]) {
        let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let is = |name: &[u8]| coding.eq_ignore_ascii_case(name);
        let place = if is(b"br") {
            &mut self.br
        } else if is(b"zstd") {
            &mut self.zstd
        } else if is(b"gzip") || is(b"x-gzip") {
            &mut self.gzip
        } else if is(b"identity") {
            &mut self.identity
        } else if is(b"*") {
            &mut self.any
        } else {
            return;
        };
        let weight = parts.find_map(|part| {
            part.strip_prefix(b"q=")
                .or_else(|| part.strip_prefix(b"Q="))
        });
        *place = Some(weight.map_or(FULL, thousandths));
    }

    fn weight(&self, encoding: ContentEncoding) -> u16 {
        let said = match encoding {
            ContentEncoding::Br => self.br,
            ContentEncoding::Zstd => self.zstd,
            ContentEncoding::Gzip => self.gzip,
        };
        // `*` counts a little less than being named, so that `gzip, *` gets gzip.
        said.or_else(|| self.any.map(|any| any.saturating_sub(1)))
            .unwrap_or(0)
    }

    /// Always taken unless refused, but after everything that is asked for.
    fn identity(&self) -> u16 {
        match (self.identity, self.any) {
            (Some(weight), _) => weight,
            (None, Some(0)) => 0,
            (None, _) => 1,
        }
    }
}

/// A `qvalue` (RFC 9110 12.4.2); what is none refuses.
fn thousandths(text: &[u8]) -> u16 {
    let (whole, fraction) = match text {
        [whole @ (b'0' | b'1')] => (*whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (*whole, fraction),
        _ => return 0,
    };
    let mut thousandths = 0;
    for place in 0..3 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return 0;
        }
        thousandths = thousandths * 10 + u16::from(digit - b'0');
    }
    if whole == b'1' { FULL } else { thousandths }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{MemoryFile, Release};
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    fn chosen(accept: Option<&str>) -> &'static str {
        let variant = |encoding, size| (encoding, Bytes::from(vec![b'x'; size]));
        let file = MemoryFile {
            path: "a.txt",
            media_type: "text/plain",
            bytes: Bytes::from(vec![b'a'; 1000]),
            modified: None,
            variants: vec![
                variant(ContentEncoding::Br, 300),
                variant(ContentEncoding::Zstd, 310),
                variant(ContentEncoding::Gzip, 350),
            ],
        };
        let digest = helix_service::digest::sha256(b"");
        let release = Release::from_files("aaaaaaaaaaaaaaaaaaaa".parse().unwrap(), digest, [file]);
        let representations = &release.file("a.txt").unwrap().representations;
        let field = accept.map(|accept| (ACCEPT_ENCODING, HeaderValue::try_from(accept).unwrap()));
        let map = HeaderMap::from_iter(field);
        let at = choose(representations, Fields::Map(&map));
        representations[at]
            .encoding
            .map_or("identity", ContentEncoding::name)
    }

    #[test]
    fn weights_decide_and_then_size() {
        for (accept, expected) in [
            (None, "identity"),
            (Some(""), "identity"),
            (Some("gzip, deflate, br, zstd"), "br"),
            (Some("gzip, deflate"), "gzip"),
            (Some("X-GZIP"), "gzip"),
            (Some("zstd;q=1.0, br;q=0.9"), "zstd"),
            (Some("br;q=0.5,gzip;q=0.501"), "gzip"),
            (Some("br ; q=0.001"), "br"),
            (Some("identity, br;q=0.5"), "identity"),
            (Some("br;q=0, gzip;q=0"), "identity"),
            (Some("*"), "br"),
            (Some("gzip, *"), "gzip"),
            (Some("*;q=0"), "identity"),
            (Some("identity;q=0, gzip;q=0.1"), "gzip"),
            (Some("identity;q=0"), "identity"),
            (Some("identity;q=0, *;q=0"), "identity"),
            (Some("br;q=2, gzip"), "gzip"),
            (Some("br;q=x, gzip;q=0.0001"), "identity"),
            (Some("brotli, compress"), "identity"),
            (Some("BR"), "br"),
        ] {
            assert_eq!(chosen(accept), expected, "{accept:?}");
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(accept in "[a-z*;=,q0-9. ]{0,40}") {
            chosen(Some(&accept));
        }
    }
}
