//! Whether a webhook comes from who it says: the signatures of three providers. Pure.
//!
//! Invariant: the bytes are verified as they came, before anything of them is read, and secrets are compared in constant time.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use helix_routing::api::Provider;
use helix_routing::time::Timestamp;
use helix_service::digest::sha256;
use http::HeaderMap;

/// What every secret that origin makes starts with, as Standard Webhooks has it.
pub const SECRET_PREFIX: &str = "whsec_";
/// How far the time of a signed delivery may be from ours, either way.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Longest id of a delivery, in bytes.
const MAX_DELIVERY: usize = 200;
/// Signatures of one delivery that are tried: a provider that rotates sends two.
const MAX_SIGNATURES: usize = 8;

/// A delivery is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Nothing vouches for it.
    #[error("the delivery is not signed: set the webhook's secret to that of `helix link`")]
    Missing,
    /// The signature is not of any secret.
    #[error("the delivery's signature is not of this link's secret")]
    Wrong,
    /// It was signed too long ago, or will be.
    #[error("the delivery was signed more than five minutes ago, or by a clock that is ahead")]
    Time,
    /// This provider sends none.
    #[error("plain git servers send no webhooks")]
    NoWebhooks,
}

/// Checks a delivery against every secret that counts.
///
/// # Errors
/// When none of them signed it, or too long ago.
pub fn verify(
    provider: Provider,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[String],
    now: Timestamp,
) -> Result<(), SignatureError> {
    match provider {
        Provider::Github => hub(headers, "x-hub-signature-256", body, secrets),
        Provider::Bitbucket => hub(headers, "x-hub-signature", body, secrets),
        Provider::Gitlab if headers.contains_key("webhook-signature") => {
            standard(headers, body, secrets, now)
        }
        Provider::Gitlab => token(headers, secrets),
        Provider::Git => Err(SignatureError::NoWebhooks),
    }
}

/// What names the delivery, so that it has its effect once: the provider's id, if it sent one, and what it holds. Ids are not signed, so
/// whoever repeats a delivery could give it another.
#[must_use]
pub fn names(provider: Provider, headers: &HeaderMap, body: &[u8]) -> Vec<String> {
    let ids: &[&str] = match provider {
        Provider::Github => &["x-github-delivery"],
        Provider::Gitlab => &["webhook-id", "idempotency-key"],
        Provider::Bitbucket => &["x-request-uuid"],
        Provider::Git => &[],
    };
    let id = ids.iter().find_map(|name| one(headers, name));
    let id = id.filter(|id| !id.is_empty() && id.len() <= MAX_DELIVERY);
    let kind = one(headers, "x-github-event").or_else(|| one(headers, "x-event-key"));
    let content = [kind.unwrap_or_default().as_bytes(), b"\n", body].concat();
    let mut names = vec![sha256(&content).to_string()];
    names.extend(id.map(|id| format!("{}:{id}", provider.name())));
    names
}

/// The value of a header that is there once.
#[must_use]
pub fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()
}

fn hub(
    headers: &HeaderMap,
    name: &str,
    body: &[u8],
    secrets: &[String],
) -> Result<(), SignatureError> {
    let signature = one(headers, name).ok_or(SignatureError::Missing)?;
    let tag = signature
        .strip_prefix("sha256=")
        .and_then(|digits| hex::decode(digits).ok())
        .ok_or(SignatureError::Wrong)?;
    any(secrets, |secret| {
        is_signed(secret.as_bytes(), &[body], &tag)
    })
}

fn standard(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[String],
    now: Timestamp,
) -> Result<(), SignatureError> {
    let id = one(headers, "webhook-id").ok_or(SignatureError::Missing)?;
    let at = one(headers, "webhook-timestamp").ok_or(SignatureError::Missing)?;
    let signatures = one(headers, "webhook-signature").ok_or(SignatureError::Missing)?;
    let tags: Vec<Vec<u8>> = signatures
        .split(' ')
        .take(MAX_SIGNATURES)
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .collect();
    let head = format!("{id}.{at}.");
    any(secrets, |secret| {
        let key = secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret);
        let Ok(key) = STANDARD.decode(key) else {
            return false;
        };
        tags.iter()
            .any(|tag| is_signed(&key, &[head.as_bytes(), body], tag))
    })?;
    let seconds: u64 = at.parse().map_err(|_| SignatureError::Time)?;
    let apart = (now.as_millis() / 1000).abs_diff(seconds);
    if apart > WINDOW.as_secs() {
        return Err(SignatureError::Time);
    }
    Ok(())
}

fn token(headers: &HeaderMap, secrets: &[String]) -> Result<(), SignatureError> {
    let given = one(headers, "x-gitlab-token").ok_or(SignatureError::Missing)?;
    any(secrets, |secret| {
        verify_slices_are_equal(given.as_bytes(), secret.as_bytes()).is_ok()
    })
}

/// Every secret is tried, also after one that fits.
fn any(secrets: &[String], fits: impl Fn(&str) -> bool) -> Result<(), SignatureError> {
    let fitting = secrets.iter().filter(|secret| fits(secret)).count();
    if fitting > 0 {
        Ok(())
    } else {
        Err(SignatureError::Wrong)
    }
}

fn is_signed(secret: &[u8], parts: &[&[u8]], tag: &[u8]) -> bool {
    let mut signing = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    for part in parts {
        signing.update(part);
    }
    verify_slices_are_equal(signing.sign().as_ref(), tag).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn secrets(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    const NOW: Timestamp = Timestamp::from_millis(1_614_265_330_000);
    /// GitHub's own example of a secret, a body and its signature.
    const KNOWN: (&str, &str, &str) = (
        "It's a Secret to Everybody",
        "Hello, World!",
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    );

    #[test]
    fn github_and_bitbucket_sign_the_bytes() {
        let (secret, body, signature) = KNOWN;
        for (provider, name) in [
            (Provider::Github, "x-hub-signature-256"),
            (Provider::Bitbucket, "x-hub-signature"),
        ] {
            let verify = |headers: &HeaderMap, body: &str, known: &[&str]| {
                verify(provider, headers, body.as_bytes(), &secrets(known), NOW)
            };
            let signed = headers(&[(name, signature)]);
            assert_eq!(verify(&signed, body, &[secret]), Ok(()));
            assert_eq!(
                verify(&signed, body, &["new", secret]),
                Ok(()),
                "while it rotates"
            );
            assert_eq!(verify(&signed, body, &["new"]), Err(SignatureError::Wrong));
            assert_eq!(verify(&signed, body, &[]), Err(SignatureError::Wrong));
            assert_eq!(
                verify(&signed, "Hello, World", &[secret]),
                Err(SignatureError::Wrong)
            );
            assert_eq!(
                verify(&headers(&[]), body, &[secret]),
                Err(SignatureError::Missing)
            );
            let twice = headers(&[(name, "sha256=00"), (name, signature)]);
            assert_eq!(
                verify(&twice, body, &[secret]),
                Err(SignatureError::Missing)
            );
            for cut in [
                "",
                "sha256=",
                "sha1=00",
                &signature[..signature.len() - 2],
                &signature[..20],
            ] {
                let signed = headers(&[(name, cut)]);
                assert_eq!(
                    verify(&signed, body, &[secret]),
                    Err(SignatureError::Wrong),
                    "{cut}"
                );
            }
        }
    }

    #[test]
    fn gitlab_signs_id_time_and_bytes_and_only_for_a_while() {
        // The example of Standard Webhooks' own libraries.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = br#"{"test": 2432232314}"#;
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let signed = |id: &str, at: &str, signature: &str| {
            headers(&[
                ("webhook-id", id),
                ("webhook-timestamp", at),
                ("webhook-signature", signature),
            ])
        };
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let verify = |headers: &HeaderMap, now: Timestamp| {
            verify(
                Provider::Gitlab,
                headers,
                body,
                &secrets(&["other", secret]),
                now,
            )
        };
        let good = signed(id, "1614265330", signature);
        assert_eq!(verify(&good, NOW), Ok(()));
        assert_eq!(
            verify(
                &signed(id, "1614265330", &format!("v1,AAAA {signature}")),
                NOW
            ),
            Ok(())
        );
        for (headers, what) in [
            (signed("msg_other", "1614265330", signature), "id"),
            (signed(id, "1614265331", signature), "time"),
            (signed(id, "1614265330", "v1,AAAA"), "signature"),
            (
                signed(id, "1614265330", &signature.replace("v1,", "v2,")),
                "version",
            ),
        ] {
            assert_eq!(verify(&headers, NOW), Err(SignatureError::Wrong), "{what}");
        }
        for (offset, expected) in [(300, Ok(())), (301, Err(SignatureError::Time))] {
            let later = Timestamp::from_millis(NOW.as_millis() + offset * 1000);
            let earlier = Timestamp::from_millis(NOW.as_millis() - offset * 1000);
            assert_eq!(verify(&good, later), expected);
            assert_eq!(verify(&good, earlier), expected);
        }
    }

    #[test]
    fn gitlab_may_show_the_secret_itself() {
        let shown = |token: &str| {
            let headers = headers(&[("x-gitlab-token", token)]);
            verify(
                Provider::Gitlab,
                &headers,
                b"{}",
                &secrets(&["a", "b"]),
                NOW,
            )
        };
        assert_eq!(shown("b"), Ok(()));
        for token in ["c", "", "ab", "b "] {
            assert_eq!(shown(token), Err(SignatureError::Wrong), "{token}");
        }
        let plain = verify(Provider::Git, &headers(&[]), b"", &secrets(&["a"]), NOW);
        assert_eq!(plain, Err(SignatureError::NoWebhooks));
    }

    #[test]
    fn a_delivery_is_known_by_its_id_and_by_what_it_holds() {
        let named = |id: &str, body: &[u8]| {
            names(
                Provider::Github,
                &headers(&[("x-github-delivery", id)]),
                body,
            )
        };
        let one = named("a", b"x");
        assert_eq!(one[1], "github:a");
        assert_eq!(one[0], named("b", b"x")[0], "another id, the same bytes");
        assert_ne!(one[0], named("a", b"y")[0]);
        assert_eq!(names(Provider::Github, &headers(&[]), b"x").len(), 1);
    }
}
