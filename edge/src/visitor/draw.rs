//! Pure. The cookie that keeps a visitor on a side: what was drawn, signed.
//!
//! It holds the draw and not the side, so that whoever had the candidate at a lower weight has it at every higher one. It is
//! bound to site and candidate: after the rollout it means nothing, and the next candidate gets other visitors.
//!
//! ```text
//! __helix_draw=1.<draw>.<end>.<signature>     draw in 0..10000, end in seconds since 1970, HMAC-SHA-256 in base64url
//! ```

use std::fmt;
use std::str;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use helix_routing::id::{ReleaseId, SiteId};
use helix_service::pass;
use http::HeaderValue;

/// Its name.
pub const NAME: &str = "__helix_draw";
/// Draws there are: hundredths of a percent.
pub const DRAWS: u16 = 10_000;
/// How long a visitor who does not come back is known, in seconds.
const LIFE: u64 = 7 * 24 * 60 * 60;
/// A visitor who comes with less than this left gets the same draw for another life.
const RENEW: u64 = LIFE / 2;
/// Bytes of the signature: as many as an HMAC needs against guessing.
const SIGNATURE_BYTES: usize = 16;
/// Longest value that is looked at, in bytes.
const MAX_BYTES: usize = 64;

/// What edges sign with: the same on all of them.
pub struct Key(hmac::Key);

impl Key {
    /// Of this secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// What passes are signed with that have this half of their key in a record.
    #[must_use]
    pub fn for_passes(&self, half: &str) -> pass::Key {
        pass::Key::of(&self.0, half)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// What a draw is for.
#[derive(Clone, Copy, Debug)]
pub struct For<'a> {
    /// The site.
    pub site: &'a SiteId,
    /// The candidate.
    pub candidate: &'a ReleaseId,
}

/// A draw that was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What was drawn.
    pub draw: u16,
    /// Whether the cookie is to be sent again.
    pub is_old: bool,
}

/// Whether who drew this gets the candidate when so many percent do.
#[must_use]
pub const fn is_in(draw: u16, weight: u8) -> bool {
    (draw as u32) < weight as u32 * (DRAWS as u32 / 100)
}

/// What a cookie's value says at `now`, in seconds; none of what is forged, foreign, expired or malformed.
#[must_use]
pub fn read(key: &Key, of: For<'_>, now: u64, value: &[u8]) -> Option<Known> {
    if value.len() > MAX_BYTES {
        return None;
    }
    let value = str::from_utf8(value).ok()?;
    let (said, signature) = value.rsplit_once('.')?;
    let mut parts = said.split('.');
    let (Some("1"), Some(draw), Some(end), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let draw: u16 = draw.parse().ok().filter(|draw| *draw < DRAWS)?;
    let end: u64 = end.parse().ok()?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    verify_slices_are_equal(&signature, &sign(key, of, said)).ok()?;
    // One that ends later than any that is made today was made by a clock that is wrong: it is as good as any.
    let is_old = (now..now + RENEW).contains(&end);
    (now < end).then_some(Known { draw, is_old })
}

/// The value that says so.
#[must_use]
pub fn write(key: &Key, of: For<'_>, now: u64, draw: u16) -> String {
    let said = format!("1.{draw}.{}", now + LIFE);
    let signature = URL_SAFE_NO_PAD.encode(sign(key, of, &said));
    format!("{said}.{signature}")
}

/// The whole field, for a visitor who came over TLS or not.
#[must_use]
pub fn field(value: &str, secure: bool) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{NAME}={value}; Path=/; Max-Age={LIFE}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).expect("digits, dots and base64url are legal in a field")
}

fn sign(key: &Key, of: For<'_>, said: &str) -> [u8; SIGNATURE_BYTES] {
    // None of the parts can hold a line feed.
    let text = format!("helix draw\n{}\n{}\n{said}", of.site, of.candidate);
    let tag = hmac::sign(&key.0, text.as_bytes());
    let mut signature = [0; SIGNATURE_BYTES];
    signature.copy_from_slice(&tag.as_ref()[..SIGNATURE_BYTES]);
    signature
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn site(name: &str) -> SiteId {
        name.parse().unwrap()
    }

    fn release(digit: char) -> ReleaseId {
        String::from(digit).repeat(20).parse().unwrap()
    }

    #[test]
    fn a_cookie_is_good_for_its_site_candidate_key_and_life_alone() {
        let (key, other_key) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
        let (shop, other, a, b) = (
            site("shop/production"),
            site("other/production"),
            release('a'),
            release('b'),
        );
        let of = For {
            site: &shop,
            candidate: &a,
        };
        let value = write(&key, of, NOW, 1234);
        let known = |key: &Key, of, now, value: &str| {
            read(key, of, now, value.as_bytes()).map(|known| (known.draw, known.is_old))
        };
        assert_eq!(known(&key, of, NOW, &value), Some((1234, false)));
        assert_eq!(
            known(&key, of, NOW + LIFE - 1, &value),
            Some((1234, true)),
            "near its end"
        );
        assert_eq!(known(&key, of, NOW + LIFE, &value), None, "expired");
        assert_eq!(known(&other_key, of, NOW, &value), None, "forged");
        let foreign = For { site: &other, ..of };
        assert_eq!(known(&key, foreign, NOW, &value), None, "of another site");
        let before = For {
            candidate: &b,
            ..of
        };
        assert_eq!(known(&key, before, NOW, &value), None, "of another rollout");
        let (said, signature) = value.rsplit_once('.').unwrap();
        for malformed in [
            String::new(),
            ".".to_owned(),
            "1.1234".to_owned(),
            said.to_owned(),
            format!("{said}."),
            format!("{said}.{}", &signature[1..]),
            format!("{said}.{signature}A"),
            format!("{said}.{signature}="),
            value.replacen("1234", "1233", 1),
            value.replacen("1234", "+1234", 1),
            value.replacen("1.", "2.", 1),
            format!("1.{value}"),
            format!(" {value}"),
            format!("{value}{}", "x".repeat(100)),
        ] {
            assert_eq!(known(&key, of, NOW, &malformed), None, "{malformed:?}");
        }
        assert_eq!(read(&key, of, NOW, b"\xff.\xff"), None);
    }

    #[test]
    fn a_cookie_is_for_browsers_alone_and_over_tls_for_tls_alone() {
        let field = |secure| field("x", secure).to_str().unwrap().to_owned();
        assert_eq!(
            field(true),
            "__helix_draw=x; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax; Secure"
        );
        assert!(!field(false).contains("Secure"));
    }

    proptest! {
        #[test]
        fn who_is_in_stays_in_as_the_weight_rises(draw in 0..DRAWS, a in 0_u8..=100, b in 0_u8..=100) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(!is_in(draw, low) || is_in(draw, high));
            prop_assert!(!is_in(draw, 0) && is_in(draw, 100));
        }

        #[test]
        fn what_was_written_is_read_by_every_edge_and_nothing_else_is(
            draw in 0..DRAWS, at in 0_usize..64, byte in any::<u8>(),
        ) {
            let (shop, a) = (site("shop/production"), release('a'));
            let of = For { site: &shop, candidate: &a };
            let mut value = write(&Key::new(&[7; 32]), of, NOW, draw).into_bytes();
            let known = read(&Key::new(&[7; 32]), of, NOW, &value).map(|known| known.draw);
            prop_assert_eq!(known, Some(draw));
            let at = at % value.len();
            // The last digit of base64 has bits that say nothing; they have to be as written.
            if value[at] != byte {
                value[at] = byte;
                prop_assert_eq!(read(&Key::new(&[7; 32]), of, NOW, &value), None);
            }
        }
    }

    #[test]
    fn every_weight_lets_in_exactly_its_share_of_draws() {
        for weight in 0..=100_u8 {
            let within = (0..DRAWS).filter(|draw| is_in(*draw, weight)).count();
            assert_eq!(within, usize::from(weight) * 100, "{weight}");
        }
    }
}
