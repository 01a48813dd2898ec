//! What is kept of a password, and whether one is it: PBKDF2 with HMAC-SHA-256 (RFC 8018 5.2).
//!
//! Invariant: it takes a tenth of a second of a core by design, so whoever calls it does so beside the path of requests, and
//! limits how often.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use helix_routing::protection::PasswordCheck;

/// Rounds of a password that is set today, as OWASP's cheat sheet on storing passwords has it for this function.
const ITERATIONS: u32 = 600_000;

/// What is kept of a password that is set now.
#[must_use]
pub fn keep(password: &str) -> PasswordCheck {
    let mut kept = PasswordCheck {
        iterations: ITERATIONS,
        salt: rand::random(),
        hash: [0; 32],
    };
    let rounds = rounds(kept.iterations);
    let hash = &mut kept.hash;
    pbkdf2::derive(
        PBKDF2_HMAC_SHA256,
        rounds,
        &kept.salt,
        password.as_bytes(),
        hash,
    );
    kept
}

/// Whether `password` is the one of which `kept` was kept. Takes as long for a wrong one.
#[must_use]
pub fn is(kept: &PasswordCheck, password: &[u8]) -> bool {
    let rounds = rounds(kept.iterations);
    pbkdf2::verify(PBKDF2_HMAC_SHA256, rounds, &kept.salt, password, &kept.hash).is_ok()
}

fn rounds(iterations: u32) -> NonZeroU32 {
    NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_password_is_it() {
        let kept = keep("correct horse");
        assert!(is(&kept, b"correct horse"));
        for wrong in [
            &b""[..],
            b"correct hors",
            b"correct horse ",
            b"Correct horse",
        ] {
            assert!(!is(&kept, wrong));
        }
        assert_ne!(
            keep("correct horse").salt,
            kept.salt,
            "each has its own salt"
        );
    }
}
