//! What a `nats-server` in operator mode believes: JWTs of operator, accounts and users (version 2), signed with nkeys.
//! *Pure*: values in, text out.
//!
//! It knows how claims are written, and what an edge may do. That is said in one place, since origin issues it and tests attack it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use helix_routing::id::{EdgeId, RegionId};
use helix_routing::key::Scope;
use helix_routing::queue;
use helix_routing::time::Timestamp;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::digest::sha256;

/// The JetStream domain of the servers that hold the streams. Reads of them travel under its name, since a leaf node lets
/// nothing else of the JetStream API through.
pub const DOMAIN: &str = "origin";
/// How the account that owns the streams is called.
pub const ORIGIN_ACCOUNT: &str = "ORIGIN";
/// How the account of workers is called.
pub const BUILD_ACCOUNT: &str = "BUILD";
/// How the account of the servers' own messages is called.
pub const SYSTEM_ACCOUNT: &str = "SYS";

const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

/// A key cannot sign: it is a public half, or of another kind.
#[derive(Debug, thiserror::Error)]
#[error("sign NATS claims of {name}")]
pub struct SignError {
    /// Whose claims.
    pub name: String,
    /// Why not.
    #[source]
    pub source: nkeys::error::Error,
}

/// Who signs, and when.
#[derive(Debug)]
pub struct Issuer<'a> {
    /// Its key.
    pub key: &'a KeyPair,
    /// Now.
    pub at: Timestamp,
}

impl Issuer<'_> {
    fn sign(&self, subject: &str, name: &str, nats: Value) -> Result<String, SignError> {
        let mut claims = json!({
            "iat": self.at.as_millis() / 1000, "iss": self.key.public_key(), "name": name, "sub": subject, "nats": nats,
        });
        let id = sha256(claims.to_string().as_bytes());
        claims["jti"] = Value::from(id.hex());
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(HEADER),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self.key.sign(signed.as_bytes());
        let signature = signature.map_err(|source| SignError {
            name: name.to_owned(),
            source,
        })?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The operator, signed by itself. Its servers know their own account by `system`.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn operator(&self, system: &str) -> Result<String, SignError> {
        let nats = json!({"type": "operator", "version": 2, "system_account": system});
        self.sign(&self.key.public_key(), "helix", nats)
    }

    /// The account of the servers' own messages.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn system(&self, account: &str) -> Result<String, SignError> {
        self.account(account, SYSTEM_ACCOUNT, json!({"limits": limits(false)}))
    }

    /// The account that owns the streams, and what it lets others have of them. Who has what of it is said in their accounts,
    /// which nobody but the operator can write.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn origin(&self, account: &str) -> Result<String, SignError> {
        let stream = |subject: &str| json!({"name": subject, "subject": subject, "type": "stream"});
        let exports = json!([
            stream("edge.g.>"),
            stream("edge.r.*.>"),
            {"name": "reads", "subject": format!("$JS.{DOMAIN}.API.DIRECT.GET.*"), "type": "service", "response_type": "Stream"},
            {"name": "reports", "subject": "rpt.*.>", "type": "service"},
        ]);
        let queue = queue_subjects().map(|(subject, _)| json!({"name": subject, "subject": subject, "type": "service", "response_type": "Stream"}));
        let exports: Vec<&Value> = exports
            .as_array()
            .into_iter()
            .flatten()
            .chain(&queue)
            .collect();
        let nats = json!({"limits": limits(true), "exports": exports});
        self.account(account, ORIGIN_ACCOUNT, nats)
    }

    /// The account of an edge: the feeds and reads of its region, and its own reports. `signing` may issue its user.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn edge(
        &self,
        account: &str,
        (edge, region): (&EdgeId, &RegionId),
        origin: &str,
        signing: &str,
    ) -> Result<String, SignError> {
        let nats = json!({
            "limits": limits(false),
            "imports": imports(region, &format!("rpt.{region}.{edge}.>"), origin),
            "signing_keys": [signing],
        });
        self.account(account, &format!("EDGE_{edge}"), nats)
    }

    /// The account by which a region's leaf nodes are linked: what the edges of the region have together.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn leaf(
        &self,
        account: &str,
        region: &RegionId,
        origin: &str,
        signing: &str,
    ) -> Result<String, SignError> {
        let nats = json!({
            "limits": limits(false),
            "imports": imports(region, &format!("rpt.{region}.>"), origin),
            "signing_keys": [signing],
        });
        self.account(account, &format!("LEAF_{region}"), nats)
    }

    /// The account of workers, who run what strangers wrote: the queue of builds, and nothing else.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn build(&self, account: &str, origin: &str) -> Result<String, SignError> {
        let imports = queue_subjects().map(|(subject, local)| {
            json!({"name": local, "subject": subject, "local_subject": local, "account": origin, "type": "service"})
        });
        let nats = json!({"limits": limits(false), "imports": imports});
        self.account(account, BUILD_ACCOUNT, nats)
    }

    fn account(&self, account: &str, name: &str, mut nats: Value) -> Result<String, SignError> {
        nats["type"] = Value::from("account");
        nats["version"] = Value::from(2);
        self.sign(account, name, nats)
    }

    /// A user of `account`, which is the issuer itself or named it as a key that may sign for it.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn user(
        &self,
        user: &str,
        name: &str,
        account: &str,
        may: Option<&May>,
    ) -> Result<String, SignError> {
        let mut nats = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
        if self.key.public_key() != account {
            nats["issuer_account"] = Value::from(account);
        }
        if let Some(may) = may {
            nats["pub"] = json!({"allow": may.publish});
            nats["sub"] = json!({"allow": may.subscribe});
        }
        self.sign(user, name, nats)
    }

    /// The account of an edge that is no more: nobody is let in by it, who is connected is cut, and it has no imports. It is never
    /// deleted: then nothing could be compared with what a server that was away still has.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn ended(&self, account: &str, edge: &str) -> Result<String, SignError> {
        let mut limits = limits(false);
        limits["conn"] = Value::from(0);
        limits["leaf"] = Value::from(0);
        let nats = json!({"limits": limits, "revocations": {"*": self.at.as_millis() / 1000}});
        self.account(account, &format!("ENDED_{edge}"), nats)
    }
}

/// Subjects that a user may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct May {
    /// May send to.
    pub publish: Vec<String>,
    /// May hear.
    pub subscribe: Vec<String>,
}

/// What an edge's user may do, and nothing else.
#[must_use]
pub fn edge_may(edge: &EdgeId, region: &RegionId) -> May {
    let mut publish = reads(region);
    publish.push(format!("rpt.{region}.{edge}.>"));
    let mut subscribe = feeds(region);
    subscribe.push("_INBOX.>".to_owned());
    May { publish, subscribe }
}

/// What a worker's user may do, and nothing else.
#[must_use]
pub fn worker_may() -> May {
    May {
        publish: queue_subjects().map(|(_, local)| local).into(),
        subscribe: vec!["_INBOX.>".to_owned()],
    }
}

/// What the queue of builds is asked by: as origin's account has it, and as workers do.
fn queue_subjects() -> [(String, String); 3] {
    let [info, next] = queue::ASKS.map(|asked| {
        let (theirs, ours) = (
            format!("$JS.{DOMAIN}.API.{asked}"),
            format!("{}.{asked}", queue::API),
        );
        (theirs, ours)
    });
    [info, next, (queue::ACK.to_owned(), queue::ACK.to_owned())]
}

/// What a leaf node's user may do in the account of the servers' own messages: learn accounts.
#[must_use]
pub fn leaf_system_may() -> May {
    let owned = |subjects: &[&str]| subjects.iter().map(|&subject| subject.to_owned()).collect();
    May {
        publish: owned(&[
            "$SYS.REQ.CLAIMS.PACK",
            "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP",
            "_INBOX.>",
            "_R_.>",
            "$SYS._INBOX.>",
            "$SYS._INBOX_.>",
        ]),
        subscribe: owned(&[
            "$SYS.REQ.CLAIMS.UPDATE",
            "$SYS.REQ.CLAIMS.DELETE",
            "$SYS.REQ.ACCOUNT.*.CLAIMS.UPDATE",
            "$SYS.ACCOUNT.*.CLAIMS.UPDATE",
            "_INBOX.>",
            "$SYS._INBOX.>",
            "$SYS._INBOX_.>",
        ]),
    }
}

fn feeds(region: &RegionId) -> Vec<String> {
    let scopes = [Scope::Global, Scope::Region(region.clone())];
    scopes
        .iter()
        .map(|scope| format!("{}>", scope.feed_prefix()))
        .collect()
}

fn reads(region: &RegionId) -> Vec<String> {
    let scopes = [Scope::Global, Scope::Region(region.clone())];
    let streams = scopes
        .iter()
        .flat_map(|scope| [scope.stream(), scope.snapshot_stream()]);
    streams
        .map(|stream| format!("$JS.API.DIRECT.GET.{stream}"))
        .collect()
}

fn imports(region: &RegionId, reports: &str, origin: &str) -> Value {
    let feeds = feeds(region).into_iter().map(
        |subject| json!({"name": subject, "subject": subject, "account": origin, "type": "stream"}),
    );
    let reads = reads(region).into_iter().map(|local| {
        let subject = local.replacen("$JS.", &format!("$JS.{DOMAIN}."), 1);
        json!({"name": local, "subject": subject, "local_subject": local, "account": origin, "type": "service"})
    });
    // `share` makes the server say which account a report came from.
    let reports = json!({"name": reports, "subject": reports, "account": origin, "type": "service", "share": true});
    feeds.chain(reads).chain([reports]).collect()
}

/// None: what edges may use up is bounded by what they may do.
fn limits(jetstream: bool) -> Value {
    let mut limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    if jetstream {
        for name in ["mem_storage", "disk_storage", "streams", "consumer"] {
            limits[name] = Value::from(-1);
        }
    }
    limits
}

/// A credentials file: a user's JWT and the seed that belongs to it.
#[must_use]
pub fn credentials(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_account_names_nothing_of_another_region_or_edge() {
        let (operator, signing) = (KeyPair::new_operator(), KeyPair::new_account());
        let issuer = Issuer {
            key: &operator,
            at: Timestamp::from_millis(1_700_000_000_000),
        };
        let (edge, region) = ("fra-1".parse().unwrap(), "fra".parse().unwrap());
        let jwt = issuer
            .edge(
                "AACCOUNT",
                (&edge, &region),
                "AORIGIN",
                &signing.public_key(),
            )
            .unwrap();
        let mut parts = jwt.split('.');
        let signed = format!("{}.{}", parts.next().unwrap(), parts.next().unwrap());
        let signature = URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
        operator.verify(signed.as_bytes(), &signature).unwrap();
        let body = URL_SAFE_NO_PAD
            .decode(signed.split('.').nth(1).unwrap())
            .unwrap();
        let claims: Value = serde_json::from_slice(&body).unwrap();
        let imports = claims["nats"]["imports"].to_string();
        for subject in [
            "rpt.fra.fra-1.>",
            "edge.r.fra.>",
            "$JS.origin.API.DIRECT.GET.KV_r_fra",
            "$JS.API.DIRECT.GET.OBJ_snap_g",
        ] {
            assert!(imports.contains(subject), "{subject} is not in {imports}");
        }
        assert!(!imports.contains('*'), "{imports}");
        assert_eq!(claims["iat"], 1_700_000_000);
        let may = edge_may(&edge, &region);
        assert!(
            may.publish
                .iter()
                .all(|subject| !subject.contains("KV_r_iad"))
        );
    }
}
