//! *Pure*. Whether a request to join is for its token, and whether who asks holds the keys that it names.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use helix_routing::edge::join::{JoinRequest, JoinTokenView, RenewalRequest, renewal, statement};
use helix_service::keys::verify;
use nkeys::{KeyPair, KeyPairType};

use super::AdmissionError;

/// Longest URL of an edge, in bytes.
const MAX_URL: usize = 200;

/// Whether the token is for who asks, and what is asked for can be.
pub(super) fn check(request: &JoinRequest, token: &JoinTokenView) -> Result<(), AdmissionError> {
    if let Some(asked) = request
        .region
        .as_ref()
        .filter(|asked| **asked != token.region)
    {
        return Err(AdmissionError::OtherRegion {
            token: token.region.clone(),
            edge: asked.clone(),
        });
    }
    if let Some(named) = token.edge.as_ref().filter(|named| **named != request.edge) {
        return Err(AdmissionError::OtherEdge {
            token: named.clone(),
            edge: request.edge.clone(),
        });
    }
    let is_url = url::Url::parse(&request.url)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let is_plain = !request
        .url
        .chars()
        .any(|c| c.is_control() || c.is_whitespace());
    if !is_url || !is_plain || request.url.len() > MAX_URL {
        let shown: String = request.url.chars().take(MAX_URL).collect();
        return Err(AdmissionError::Illegal(format!(
            "{shown:?} is no http URL of at most {MAX_URL} bytes at which origin could probe the edge"
        )));
    }
    Ok(())
}

/// The point of the certificate's key, once both keys have signed what is asked for.
pub(super) fn point(request: &JoinRequest) -> Result<Vec<u8>, AdmissionError> {
    let statement = statement(&request.token, &request.edge, &request.url);
    both(
        &statement,
        (&request.nats_user, &request.nats_proof),
        (&request.certificate_key, &request.certificate_proof),
    )
}

/// The same of who asks for its next certificate, and joined as `user`.
pub(super) fn renewed_point(
    request: &RenewalRequest,
    user: &str,
) -> Result<Vec<u8>, AdmissionError> {
    let key = &request.certificate_key;
    both(
        &renewal(&request.edge, request.at, key),
        (user, &request.nats_proof),
        (key, &request.certificate_proof),
    )
}

fn both(
    statement: &[u8],
    (user, user_proof): (&str, &str),
    (key, key_proof): (&str, &str),
) -> Result<Vec<u8>, AdmissionError> {
    let signed = KeyPair::from_public_key(user)
        .ok()
        .filter(|key| key.key_pair_type() == KeyPairType::User)
        .zip(URL_SAFE_NO_PAD.decode(user_proof).ok());
    if signed.is_none_or(|(key, proof)| key.verify(statement, &proof).is_err()) {
        return Err(AdmissionError::Proof {
            what: "the signature of the NATS user",
        });
    }
    let proof = URL_SAFE_NO_PAD.decode(key_proof).ok();
    match hex::decode(key).ok().zip(proof) {
        Some((point, proof)) if verify(&point, statement, &proof) => Ok(point),
        _ => Err(AdmissionError::Proof {
            what: "the signature of the certificate's key",
        }),
    }
}

#[cfg(test)]
mod tests {
    use helix_routing::seal::KeyRole;
    use helix_routing::time::Timestamp;
    use helix_service::keys::SigningKey;

    use super::*;

    fn token() -> JoinTokenView {
        JoinTokenView {
            id: "0011223344556677".to_owned(),
            region: "fra".parse().unwrap(),
            edge: None,
            uses: 1,
            used: 0,
            created: Timestamp::from_millis(0),
            expires: Timestamp::from_millis(1),
            by: "ana".to_owned(),
        }
    }

    fn request() -> JoinRequest {
        let (user, key) = (KeyPair::new_user(), SigningKey::generate(KeyRole::Record));
        let (edge, url) = ("fra-1".parse().unwrap(), "http://10.0.0.1");
        let statement = statement("helix_join_x", &edge, url);
        JoinRequest {
            token: "helix_join_x".to_owned(),
            edge,
            region: None,
            url: url.to_owned(),
            nats_user: user.public_key(),
            nats_proof: URL_SAFE_NO_PAD.encode(user.sign(&statement).unwrap()),
            certificate_key: key.public().public,
            certificate_proof: URL_SAFE_NO_PAD.encode(key.sign(&statement)),
        }
    }

    #[test]
    fn only_who_holds_both_keys_joins_and_only_as_what_was_signed() {
        assert_eq!(point(&request()).unwrap().len(), 65);
        let wrongs: [fn(&mut JoinRequest); 7] = [
            |request| request.url = "http://10.0.0.2".to_owned(),
            |request| request.edge = "fra-2".parse().unwrap(),
            |request| request.token = "helix_join_y".to_owned(),
            |request| request.nats_user = KeyPair::new_user().public_key(),
            |request| request.nats_user = KeyPair::new_account().public_key(),
            |request| request.certificate_key = "04".repeat(65),
            |request| request.certificate_proof = request.nats_proof.clone(),
        ];
        for (at, wrong) in wrongs.into_iter().enumerate() {
            let mut request = request();
            wrong(&mut request);
            let refused = point(&request).unwrap_err();
            assert!(
                matches!(refused, AdmissionError::Proof { .. }),
                "{at}: {refused}"
            );
        }
    }

    #[test]
    fn a_token_is_for_its_region_and_its_edge() {
        let asked = request();
        check(&asked, &token()).unwrap();
        let named = JoinTokenView {
            edge: Some("fra-9".parse().unwrap()),
            ..token()
        };
        assert!(matches!(
            check(&asked, &named),
            Err(AdmissionError::OtherEdge { .. })
        ));
        let elsewhere = JoinRequest {
            region: Some("iad".parse().unwrap()),
            ..request()
        };
        assert!(matches!(
            check(&elsewhere, &token()),
            Err(AdmissionError::OtherRegion { .. })
        ));
        for url in [
            "",
            "10.0.0.1",
            "ftp://10.0.0.1",
            "http://",
            "http://a b/",
            "http://a/\0",
        ] {
            let asked = JoinRequest {
                url: url.to_owned(),
                ..request()
            };
            assert!(check(&asked, &token()).is_err(), "{url:?}");
        }
    }
}
