//! Says what the bytes of a file add up to, to clients that want to check it (RFC 9530).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use helix_framing::Fields;
use helix_routing::id::Digest;
use http::{HeaderName, HeaderValue};
use sfv::{Dictionary, ListEntry, Parser};

pub(super) static REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
static WANTED: HeaderName = HeaderName::from_static("want-repr-digest");
/// The one algorithm, by its name in the registry of RFC 9530.
const ALGORITHM: &str = "sha-256";

/// The digest of a representation, as a field: for who asked for it in an algorithm that there is. Bytes that nobody
/// checks are not sent.
pub(super) fn repr_digest(fields: Fields<'_>, digest: &Digest) -> Option<HeaderValue> {
    let wanted = fields.first(&WANTED)?;
    let wanted: Dictionary = Parser::parse_dictionary(wanted).ok()?;
    let Some(ListEntry::Item(preference)) = wanted.get(ALGORITHM) else {
        return None;
    };
    // Nothing means not this one (RFC 9530 4).
    preference
        .bare_item
        .as_int()
        .filter(|wish| (1..=10).contains(wish))?;
    let digest = BASE64_STANDARD.encode(hex::decode(digest.hex()).ok()?);
    HeaderValue::try_from(format!("{ALGORITHM}=:{digest}:")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[test]
    fn who_asks_is_told_in_an_algorithm_that_there_is() {
        let digest = Digest::from_hex(&"00ff".repeat(16)).unwrap();
        let told = "sha-256=:AP8A/wD/AP8A/wD/AP8A/wD/AP8A/wD/AP8A/wD/AP8=:";
        for (wanted, expected) in [
            (None, None),
            (Some("sha-256=1"), Some(told)),
            (Some("sha-512=10, sha-256=3"), Some(told)),
            (Some("sha-256=0"), None),
            (Some("sha-256=11"), None),
            (Some("sha-256"), None),
            (Some("sha-512=5"), None),
            (Some("sha-256=1, "), None),
            (Some("\"sha-256\""), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(wanted) = wanted {
                headers.insert(&WANTED, HeaderValue::from_static(wanted));
            }
            let said = repr_digest(Fields::Map(&headers), &digest);
            let said = said.as_ref().map(|said| said.to_str().unwrap());
            assert_eq!(said, expected, "{wanted:?}");
        }
    }
}
