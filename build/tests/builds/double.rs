//! A double of origin over real HTTP: what workers ask of it, and uploads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{patch, post};
use axum::{Json, Router};
use helix_client::{Access, Origin};
use helix_routing::api::{
    BuildClaim, BuildEnd, BuildJob, BuildLog, BuildOutcome, BuildWish, LogLine, NewUpload,
    PartialContent, UploadPlan,
};
use helix_service::digest::sha256;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// What has to be shown.
pub(crate) const TOKEN: &str = "worker-token-0123456789";

/// One build, as origin has it.
pub(crate) struct Build {
    pub(crate) job: BuildJob,
    /// Who has it, and since when it was heard of last.
    pub(crate) holder: Option<(String, Instant)>,
    /// All that ever claimed it.
    pub(crate) holders: Vec<String>,
    pub(crate) lines: Vec<LogLine>,
    pub(crate) outcome: Option<BuildOutcome>,
    pub(crate) stop: Option<String>,
}

/// What it holds.
pub(crate) struct Held {
    pub(crate) builds: BTreeMap<String, Build>,
    pub(crate) contents: BTreeMap<String, Vec<u8>>,
    pub(crate) lease: Duration,
    pub(crate) refuse_logs: usize,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Double {
    pub(crate) state: Arc<Mutex<Held>>,
    pub(crate) url: String,
}

impl Double {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(Held {
            builds: BTreeMap::new(),
            contents: BTreeMap::new(),
            lease: Duration::from_secs(30),
            refuse_logs: 0,
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/v1/builds/{id}/claim", post(claim))
            .route("/v1/builds/{id}/heartbeat", post(heartbeat))
            .route("/v1/builds/{id}/log", post(log))
            .route("/v1/builds/{id}/end", post(end))
            .route("/v1/projects/{project}/uploads", post(uploads))
            .route("/v1/projects/{project}/packs", post(packs))
            .route("/v1/projects/{project}/blobs/{digest}", patch(blob))
            .layer(DefaultBodyLimit::max(64 << 20))
            .with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { state, url }
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::new(Access {
            api: self.url.parse().unwrap(),
            others: Vec::new(),
            token: TOKEN.to_owned(),
            found: "test".to_owned(),
        })
        .unwrap()
    }

    pub(crate) fn add(&self, job: BuildJob) {
        let build = Build {
            job: job.clone(),
            holder: None,
            holders: Vec::new(),
            lines: Vec::new(),
            outcome: None,
            stop: None,
        };
        self.state
            .lock()
            .unwrap()
            .builds
            .insert(job.id.to_string(), build);
    }

    pub(crate) fn with<T>(&self, id: &str, look: impl FnOnce(&mut Build) -> T) -> T {
        look(self.state.lock().unwrap().builds.get_mut(id).unwrap())
    }

    pub(crate) fn log(&self, id: &str) -> String {
        self.with(id, |build| {
            build
                .lines
                .iter()
                .map(|line| format!("{:?}: {}\n", line.step, line.text))
                .collect()
        })
    }

    /// What a path of an outcome holds.
    pub(crate) fn content(&self, outcome: &BuildOutcome, path: &str) -> Option<String> {
        let BuildOutcome::Succeeded { files, .. } = outcome else {
            return None;
        };
        let file = files.iter().find(|file| file.path == path)?;
        let state = self.state.lock().unwrap();
        Some(String::from_utf8_lossy(state.contents.get(file.digest.as_str())?).into_owned())
    }
}

type Shared = State<Arc<Mutex<Held>>>;

/// An answer that is no success.
struct Refused(Box<Response>);

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response {
        *self.0
    }
}

fn problem(status: StatusCode, kind: &str) -> Refused {
    let body = serde_json::json!({"type": kind, "title": kind, "status": status.as_u16()});
    let head = [("content-type", "application/problem+json")];
    Refused(Box::new((status, head, body.to_string()).into_response()))
}

/// The build, if who asks may ask and has it.
fn held<T>(
    state: &Shared,
    headers: &HeaderMap,
    id: &str,
    worker: &str,
    then: impl FnOnce(&mut Build) -> T,
) -> Result<T, Refused> {
    authorized(headers)?;
    let mut state = state.lock().unwrap();
    let build = state
        .builds
        .get_mut(id)
        .ok_or_else(|| problem(StatusCode::NOT_FOUND, "unknown-build"))?;
    match &mut build.holder {
        Some((holder, heard)) if holder == worker && build.outcome.is_none() => {
            *heard = Instant::now();
            Ok(then(build))
        }
        _ => Err(problem(StatusCode::CONFLICT, "not-yours")),
    }
}

fn authorized(headers: &HeaderMap) -> Result<(), Refused> {
    let shown = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    if shown == Some(&format!("Bearer {TOKEN}")) {
        Ok(())
    } else {
        Err(problem(StatusCode::UNAUTHORIZED, "token"))
    }
}

async fn claim(
    state: Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(claim): Json<BuildClaim>,
) -> Result<Response, Refused> {
    authorized(&headers)?;
    let mut state = state.lock().unwrap();
    let lease = state.lease;
    let build = state
        .builds
        .get_mut(&id)
        .ok_or_else(|| problem(StatusCode::NOT_FOUND, "unknown-build"))?;
    if build.outcome.is_some() {
        return Err(problem(StatusCode::GONE, "over"));
    }
    if build
        .holder
        .as_ref()
        .is_some_and(|(_, heard)| heard.elapsed() < lease)
    {
        return Err(problem(StatusCode::CONFLICT, "taken"));
    }
    build.holder = Some((claim.worker.clone(), Instant::now()));
    build.holders.push(claim.worker);
    build.lines.clear();
    Ok(Json(build.job.clone()).into_response())
}

async fn heartbeat(
    state: Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(claim): Json<BuildClaim>,
) -> Result<Json<BuildWish>, Refused> {
    held(&state, &headers, &id, &claim.worker, |build| {
        Json(BuildWish {
            stop: build.stop.clone(),
        })
    })
}

async fn log(
    state: Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(log): Json<BuildLog>,
) -> Result<StatusCode, Refused> {
    {
        let mut state = state.lock().unwrap();
        if state.refuse_logs > 0 {
            state.refuse_logs -= 1;
            return Err(problem(StatusCode::SERVICE_UNAVAILABLE, "starting"));
        }
    }
    held(&state, &headers, &id, &log.worker, |build| {
        for line in log.lines {
            let next = build.lines.len() as u64 + 1;
            assert!(line.seq <= next, "a gap before line {}", line.seq);
            if line.seq == next {
                build.lines.push(line);
            }
        }
        StatusCode::NO_CONTENT
    })
}

async fn end(
    state: Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(end): Json<BuildEnd>,
) -> Result<StatusCode, Refused> {
    held(&state, &headers, &id, &end.worker, |build| {
        build.outcome = Some(end.outcome);
        StatusCode::NO_CONTENT
    })
}

async fn uploads(
    state: Shared,
    headers: HeaderMap,
    Json(asked): Json<NewUpload>,
) -> Result<Json<UploadPlan>, Refused> {
    authorized(&headers)?;
    let state = state.lock().unwrap();
    let missing = asked
        .contents
        .into_iter()
        .filter(|content| !state.contents.contains_key(content.digest.as_str()));
    let (large, small): (Vec<_>, Vec<_>) = missing.partition(|content| content.size >= 1 << 20);
    Ok(Json(UploadPlan {
        packed: small.into_iter().map(|content| content.digest).collect(),
        standalone: large
            .into_iter()
            .map(|content| PartialContent {
                digest: content.digest,
                offset: 0,
            })
            .collect(),
    }))
}

async fn packs(state: Shared, headers: HeaderMap, body: Bytes) -> Result<StatusCode, Refused> {
    authorized(&headers)?;
    let mut rest = &body[..];
    while !rest.is_empty() {
        let digest = format!("sha256:{}", hex::encode(&rest[..32]));
        let length = u32::from_be_bytes(rest[33..37].try_into().unwrap()) as usize;
        let bytes = &rest[37..37 + length];
        let content = if rest[32] == 1 {
            zstd::decode_all(bytes).unwrap()
        } else {
            bytes.to_vec()
        };
        assert_eq!(sha256(&content).as_str(), digest);
        state.lock().unwrap().contents.insert(digest, content);
        rest = &rest[37 + length..];
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn blob(
    state: Shared,
    Path((_, digest)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refused> {
    authorized(&headers)?;
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    // Nothing here is larger than one chunk.
    assert_eq!(
        (text("upload-offset").as_str(), text("upload-length")),
        ("0", body.len().to_string())
    );
    let content = if text("upload-encoding") == "zstd" {
        zstd::decode_all(&body[..]).unwrap()
    } else {
        body.to_vec()
    };
    state.lock().unwrap().contents.insert(digest, content);
    Ok((
        StatusCode::NO_CONTENT,
        [("upload-offset", body.len().to_string())],
    )
        .into_response())
}
