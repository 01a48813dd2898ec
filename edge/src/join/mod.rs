//! `helix-edge join`: comes into a fleet by a token.
//!
//! Two key pairs are made here and never leave: one for NATS, one for the certificate. Both sign what is asked for. What origin
//! answers is written beside them, for the owner alone, and then the config that the edge is started with.

mod renewal;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use helix_routing::api::Problem;
use helix_routing::edge::join::{JoinRequest, Joined, statement};
use helix_routing::host::Host;
use helix_routing::id::{EdgeId, RegionId};
use helix_routing::seal::KeyRole;
use helix_service::claims::credentials;
use helix_service::disk::{WriteError, write_atomic, write_secret};
use helix_service::keys::{KeyError, PublicKey, SigningKey};
use helix_service::nats::NatsConfig;
use nkeys::KeyPair;
pub use renewal::keep_certified;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

/// How long origin may take, with NATS behind it.
const ANSWER: Duration = Duration::from_secs(20);
/// The folder with all that is an edge's own, in its data folder.
const IDENTITY: &str = "identity";
/// The seed of its NATS user.
const USER: &str = "nats.nk";
/// Its certificate.
const CERTIFICATE: &str = "certificate.pem";
/// The private key of that.
const KEY: &str = "certificate.key";
/// Largest answer that is read: keys and certificates.
const MAX_ANSWER: usize = 256 * 1024;

/// What can be typed.
#[derive(Debug, Args)]
pub struct JoinArguments {
    /// Address of origin
    #[arg(long, value_name = "URL")]
    pub origin: Url,
    /// The join token, from `helix edge token create`; better in a file, or in `HELIX_JOIN_TOKEN`
    #[arg(
        long,
        env = "HELIX_JOIN_TOKEN",
        hide_env_values = true,
        conflicts_with = "token_file"
    )]
    pub token: Option<String>,
    /// File with the join token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// What this edge is called
    #[arg(long)]
    pub name: EdgeId,
    /// The region it is in; that of the token, without
    #[arg(long)]
    pub region: Option<RegionId>,
    /// Folder for keys, config and everything it keeps
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where visitors reach it
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:80")]
    pub listen: SocketAddr,
    /// Where its operator reaches it; never the open internet
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9180")]
    pub admin: SocketAddr,
    /// Where origin reaches it, to see what visitors see
    #[arg(long, value_name = "URL")]
    pub url: Url,
}

/// The edge is not in the fleet.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No token was given.
    #[error("give the join token by --token, --token-file or HELIX_JOIN_TOKEN")]
    NoToken,
    /// A file or folder cannot be used.
    #[error("use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is an edge in this folder.
    #[error("{} is there: an edge has joined with this folder; start it with `helix-edge --config`, or choose another one", path.display())]
    There {
        /// Its config.
        path: PathBuf,
    },
    /// A key cannot be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key of NATS cannot be used.
    #[error("use the key in {}", path.display())]
    Nkey {
        /// Its file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: nkeys::error::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Origin cannot be reached.
    #[error("ask {origin} to let this edge in")]
    Unreachable {
        /// Origin.
        origin: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// Origin says no.
    #[error("{origin} does not let {edge} in: {}{}", problem.title, detail(problem))]
    Refused {
        /// Origin.
        origin: String,
        /// Who asked.
        edge: EdgeId,
        /// Why not.
        problem: Box<Problem>,
    },
    /// What origin says cannot be understood.
    #[error("{origin} answered {status} with nothing that lets an edge in")]
    Unexpected {
        /// Origin.
        origin: String,
        /// Its status.
        status: u16,
    },
    /// The config cannot be written down.
    #[error("write the config")]
    Config(#[from] toml::ser::Error),
}

fn detail(problem: &Problem) -> String {
    let detail = problem.detail.as_ref();
    detail.map_or_else(String::new, |detail| format!(" ({detail})"))
}

#[derive(Serialize)]
struct ConfigFile<'a> {
    edge: &'a EdgeId,
    region: &'a RegionId,
    listen: SocketAddr,
    admin: SocketAddr,
    data_dir: PathBuf,
    base_domain: Host,
    origin: OriginTable,
    nats: NatsConfig,
    keys: Vec<PublicKey>,
}

#[derive(Serialize)]
struct OriginTable {
    url: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<String>,
    token_file: PathBuf,
}

/// Joins, and returns where the config is that the edge is started with.
///
/// # Errors
/// As [`JoinError`] says. With the same folder and token it may be tried again.
pub async fn join(arguments: JoinArguments) -> Result<PathBuf, JoinError> {
    let token = token(&arguments)?;
    let folder = arguments.data.join(IDENTITY);
    make_private(&folder)?;
    let config = arguments.data.join("edge.toml");
    if config.exists() {
        return Err(JoinError::There { path: config });
    }
    let user = user_key(&folder)?;
    let key = certificate_key(&folder)?;
    let request = request(&arguments, token, &user, &key)?;
    let origin = arguments.origin.as_str();
    let joined = ask(origin, "/v1/join", &arguments.name, &request).await?;
    write(&arguments, &folder, &config, &user.0, joined)?;
    Ok(config)
}

fn token(arguments: &JoinArguments) -> Result<String, JoinError> {
    if let Some(path) = &arguments.token_file {
        let read = fs::read_to_string(path).map_err(|source| JoinError::File {
            path: path.clone(),
            source,
        });
        return Ok(read?.trim().to_owned());
    }
    arguments.token.clone().ok_or(JoinError::NoToken)
}

fn make_private(folder: &Path) -> Result<(), JoinError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(folder);
    made.map_err(|source| JoinError::File {
        path: folder.to_owned(),
        source,
    })
}

/// Kept from an attempt before, so that origin knows who asks again.
fn user_key(folder: &Path) -> Result<(String, KeyPair), JoinError> {
    let path = folder.join(USER);
    let nkey = |source| JoinError::Nkey {
        path: path.clone(),
        source,
    };
    if !path.exists() {
        let seed = KeyPair::new_user().seed().map_err(nkey)?;
        write_secret(&path, seed.as_bytes())?;
    }
    let seed = fs::read_to_string(&path).map_err(|source| JoinError::File {
        path: path.clone(),
        source,
    })?;
    let pair = KeyPair::from_seed(seed.trim()).map_err(nkey)?;
    Ok((seed.trim().to_owned(), pair))
}

fn certificate_key(folder: &Path) -> Result<SigningKey, JoinError> {
    let path = folder.join(KEY);
    if !path.exists() {
        SigningKey::generate(KeyRole::Record).save(&path)?;
    }
    Ok(SigningKey::load(KeyRole::Record, &path)?)
}

fn request(
    arguments: &JoinArguments,
    token: String,
    (_, user): &(String, KeyPair),
    key: &SigningKey,
) -> Result<JoinRequest, JoinError> {
    let url = arguments.url.as_str().trim_end_matches('/').to_owned();
    let statement = statement(&token, &arguments.name, &url);
    let proof = user.sign(&statement).map_err(|source| JoinError::Nkey {
        path: arguments.data.join(IDENTITY).join(USER),
        source,
    })?;
    Ok(JoinRequest {
        token,
        edge: arguments.name.clone(),
        region: arguments.region.clone(),
        url,
        nats_user: user.public_key(),
        nats_proof: URL_SAFE_NO_PAD.encode(proof),
        certificate_key: key.public().public,
        certificate_proof: URL_SAFE_NO_PAD.encode(key.sign(&statement)),
    })
}

/// Asks origin for what it gives without a token of its API.
async fn ask<A: DeserializeOwned>(
    origin: &str,
    path: &str,
    edge: &EdgeId,
    request: &(impl Serialize + Sync),
) -> Result<A, JoinError> {
    let shown = origin.trim_end_matches('/').to_owned();
    let unreachable = |source: reqwest::Error| JoinError::Unreachable {
        origin: shown.clone(),
        source: source.without_url(),
    };
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(ANSWER)
        .build()
        .map_err(unreachable)?;
    let sent = client.post(format!("{shown}{path}")).json(request).send();
    let mut response = sent.await.map_err(unreachable)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&part);
        if body.len() > MAX_ANSWER {
            break;
        }
    }
    let unexpected = || JoinError::Unexpected {
        origin: shown.clone(),
        status: status.as_u16(),
    };
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|_| unexpected());
    }
    let problem = serde_json::from_slice(&body).map_err(|_| unexpected())?;
    Err(JoinError::Refused {
        origin: shown,
        edge: edge.clone(),
        problem: Box::new(problem),
    })
}

/// The config comes last: once it is there, everything that it names is.
fn write(
    arguments: &JoinArguments,
    folder: &Path,
    config: &Path,
    seed: &str,
    joined: Joined,
) -> Result<(), JoinError> {
    let unexpected = || JoinError::Unexpected {
        origin: arguments.origin.to_string(),
        status: 200,
    };
    let secret = |name: &str, text: &str| {
        let path = folder.join(name);
        write_secret(&path, text.as_bytes()).map(|()| path)
    };
    let seed_file = secret("nats.creds", &credentials(&joined.nats_jwt, seed))?;
    let token_file = secret("artifacts.token", &joined.artifact_token)?;
    let certificate_file = secret(CERTIFICATE, &joined.certificate)?;
    secret("authority.pem", &joined.authority)?;
    let ca_file = joined
        .nats_ca
        .as_ref()
        .map(|ca| secret("nats-ca.pem", ca))
        .transpose()?;
    let keys = joined.keys.into_iter().map(|key| {
        serde_json::from_value(
            serde_json::json!({"role": key.role, "id": key.id, "public": key.public}),
        )
        .ok()
    });
    let file = ConfigFile {
        edge: &joined.edge,
        region: &joined.region,
        listen: arguments.listen,
        admin: arguments.admin,
        data_dir: arguments.data.clone(),
        base_domain: joined.base_domain.parse().map_err(|_| unexpected())?,
        origin: OriginTable {
            url: base(arguments.origin.as_str()),
            others: others(arguments.origin.as_str(), &joined.origins),
            token_file,
        },
        nats: NatsConfig {
            ca_file,
            certificate_file: Some(certificate_file),
            key_file: Some(folder.join(KEY)),
            ..NatsConfig::new(joined.nats_urls.join(","), seed_file)
        },
        keys: keys.collect::<Option<_>>().ok_or_else(unexpected)?,
    };
    Ok(write_atomic(config, toml::to_string(&file)?.as_bytes())?)
}

fn base(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

/// Those of the fleet's origins that the edge has not asked.
fn others(asked: &str, origins: &[String]) -> Vec<String> {
    let mut others: Vec<String> = Vec::new();
    for origin in origins.iter().map(|origin| base(origin)) {
        if origin != base(asked) && !others.contains(&origin) {
            others.push(origin);
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_told_of_the_origins_that_it_has_not_asked() {
        let named = ["http://10.0.0.11:7700", "http://10.0.0.12:7700/"].map(str::to_owned);
        for (asked, expected) in [
            ("http://10.0.0.11:7700/", &named[1..]),
            ("http://10.0.0.12:7700", &named[..1]),
            // An address that balances over all of them.
            ("https://origin.example/", &named[..]),
        ] {
            let expected: Vec<_> = expected.iter().map(|origin| base(origin)).collect();
            assert_eq!(others(asked, &named), expected, "{asked}");
        }
        assert!(others("http://10.0.0.11:7700", &[]).is_empty());
        let twice = ["http://a".to_owned(), "http://a/".to_owned()];
        assert_eq!(others("http://b", &twice), ["http://a"]);
    }
}
