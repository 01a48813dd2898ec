//! Secrets of webhooks, and signatures after Standard Webhooks.
//!
//! Invariant: no secret is stored. Each is derived from origin's webhook key, a file of its own, and the webhook's id; SQL holds the
//! start of its digest, so that a restored database with another key is noticed instead of signing with what nobody knows.

use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use helix_service::digest::sha256;

use crate::key_file::{self, KeyFileError};

/// What every secret starts with.
const PREFIX: &str = "whsec_";
/// Digits of a secret's digest that SQL holds.
const MARK: usize = 16;

/// What secrets are derived from.
pub struct WebhookKey(hmac::Key);

impl std::fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookKey")
    }
}

impl WebhookKey {
    /// The key in this file; made if there is none.
    ///
    /// # Errors
    /// When the file cannot be read or made, or holds no key.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let key = key_file::open(path, "webhooks")?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())))
    }

    /// The secret of a webhook.
    #[must_use]
    pub fn secret(&self, webhook: &str) -> Secret {
        let tag = hmac::sign(&self.0, format!("helix-webhook-1/{webhook}").as_bytes());
        let bytes = tag.as_ref().to_vec();
        Secret(bytes)
    }
}

/// What a webhook's deliveries are signed with.
pub struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// As it is shown, once.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// By which it is recognised.
    #[must_use]
    pub fn mark(&self) -> String {
        sha256(&self.0).hex()[..MARK].to_owned()
    }

    /// The value of `webhook-signature` for a message at a time in seconds since 1970.
    #[must_use]
    pub fn sign(&self, id: &str, seconds: u64, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let tag = hmac::sign(&key, format!("{id}.{seconds}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(tag.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_specification() {
        // The example of Standard Webhooks' own libraries.
        let secret = Secret(STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
        let signed = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_key_is_made_once_and_every_webhook_has_a_secret_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("webhook.key");
        let (one, again) = (
            WebhookKey::open(&path).unwrap(),
            WebhookKey::open(&path).unwrap(),
        );
        assert_eq!(one.secret("a").shown(), again.secret("a").shown());
        assert_ne!(one.secret("a").mark(), one.secret("b").mark());
        let decoded = STANDARD.decode(one.secret("a").shown().strip_prefix(PREFIX).unwrap());
        assert_eq!(decoded.unwrap().len(), 32);
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(
            WebhookKey::open(&path),
            Err(KeyFileError::Short { .. })
        ));
    }
}
