//! Passes: what lets somebody into something that is protected, signed, with an end.
//!
//! ```text
//! 1.<kind>.<end>.<signature>     kind l (a link or a header) or s (a session's cookie), end in seconds since 1970,
//!                                HMAC-SHA-256 over kind, what it is for, and what is said, cut to 128 bits, in base64url
//! ```
//!
//! Invariant: a pass is for one thing, of one kind, and ends. The key is made of two halves that are kept apart; nothing here is
//! ever printed.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Bytes of the signature: as many as an HMAC needs against guessing.
const SIGNATURE_BYTES: usize = 16;
/// Longest pass that is looked at, in bytes.
const MAX_BYTES: usize = 64;

/// What a pass is shown in. One kind is never taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In a link, or in a header field.
    Link,
    /// In the cookie that a visitor got for another pass or a password.
    Session,
}

impl Kind {
    const fn letter(self) -> &'static str {
        match self {
            Self::Link => "l",
            Self::Session => "s",
        }
    }
}

/// What passes are signed with.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// Of both halves: one that the fleet shares, and one of what is protected.
    #[must_use]
    pub fn of(shared: &hmac::Key, own: &str) -> Self {
        let mut text = b"helix access key\n".to_vec();
        text.extend_from_slice(own.as_bytes());
        let secret = hmac::sign(shared, &text);
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()))
    }

    /// The same, with the shared half as it is stored.
    #[must_use]
    pub fn of_secret(shared: &str, own: &str) -> Self {
        Self::of(&hmac::Key::new(hmac::HMAC_SHA256, shared.as_bytes()), own)
    }

    /// A pass of this kind for `what`, to `end` in seconds.
    #[must_use]
    pub fn write(&self, kind: Kind, what: &str, end: u64) -> String {
        let said = format!("1.{}.{end}", kind.letter());
        let signature = URL_SAFE_NO_PAD.encode(self.sign(what, &said));
        format!("{said}.{signature}")
    }

    /// When a pass ends; none of what is forged, for something else, of another kind, over at `now`, or malformed.
    #[must_use]
    pub fn read(&self, kind: Kind, what: &str, now: u64, pass: &[u8]) -> Option<u64> {
        if pass.len() > MAX_BYTES {
            return None;
        }
        let pass = std::str::from_utf8(pass).ok()?;
        let (said, signature) = pass.rsplit_once('.')?;
        let mut parts = said.split('.');
        let (Some("1"), Some(letter), Some(end), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let end: u64 = end.parse().ok().filter(|end| now < *end)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let is_good = verify_slices_are_equal(&signature, &self.sign(what, said)).is_ok();
        (is_good && letter == kind.letter()).then_some(end)
    }

    fn sign(&self, what: &str, said: &str) -> [u8; SIGNATURE_BYTES] {
        // Nothing that is protected has a line feed in its name.
        let tag = hmac::sign(&self.0, format!("helix pass\n{what}\n{said}").as_bytes());
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(&tag.as_ref()[..SIGNATURE_BYTES]);
        signature
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const SITE: &str = "shop/preview/42";

    fn key(own: &str) -> Key {
        Key::of_secret(&"f".repeat(64), own)
    }

    #[test]
    fn a_pass_is_good_for_one_thing_of_one_kind_until_its_end() {
        let pass = key("a").write(Kind::Link, SITE, NOW + 60);
        let read = |key: &Key, kind, site, now| key.read(kind, site, now, pass.as_bytes());
        assert_eq!(read(&key("a"), Kind::Link, SITE, NOW), Some(NOW + 60));
        assert_eq!(read(&key("a"), Kind::Link, SITE, NOW + 59), Some(NOW + 60));
        assert_eq!(read(&key("a"), Kind::Link, SITE, NOW + 60), None, "over");
        assert_eq!(
            read(&key("a"), Kind::Session, SITE, NOW),
            None,
            "of another kind"
        );
        assert_eq!(
            read(&key("a"), Kind::Link, "shop/preview/4", NOW),
            None,
            "of another site"
        );
        assert_eq!(
            read(&key("b"), Kind::Link, SITE, NOW),
            None,
            "the protection changed"
        );
        let other_fleet = Key::of_secret(&"e".repeat(64), "a");
        assert_eq!(
            read(&other_fleet, Kind::Link, SITE, NOW),
            None,
            "of another fleet"
        );
    }

    #[test]
    fn what_is_malformed_lets_nobody_in() {
        let key = key("a");
        let good = key.write(Kind::Session, SITE, NOW + 60);
        let (said, signature) = good.rsplit_once('.').unwrap();
        for bad in [
            String::new(),
            ".".to_owned(),
            "...".to_owned(),
            said.to_owned(),
            format!("{said}."),
            format!("{said}.{}", &signature[1..]),
            format!("{said}.{}", &signature[..signature.len() - 1]),
            format!("{said}.{signature}A"),
            format!("{said}.{signature}="),
            format!("{said}.{}", signature.to_uppercase()),
            good.replacen("1.", "2.", 1),
            good.replacen(".s.", ".l.", 1),
            good.replacen(".s.", ".s.+", 1),
            good.replacen(".s.", ".s.0", 1),
            format!("1.{good}"),
            format!(" {good}"),
            format!("{good}\n"),
            format!("{good}{}", "x".repeat(200)),
            "1.s.99999999999999999999.x".to_owned(),
            "1.s.-1.x".to_owned(),
        ] {
            let read = key.read(Kind::Session, SITE, NOW, bad.as_bytes());
            assert_eq!(read, None, "{bad:?}");
        }
        assert_eq!(key.read(Kind::Session, SITE, NOW, b"1.s.\xff.\xff"), None);
        let whole = key.read(Kind::Session, SITE, NOW, good.as_bytes());
        assert_eq!(whole, Some(NOW + 60));
        assert_eq!(format!("{key:?}"), "Key");
    }
}
