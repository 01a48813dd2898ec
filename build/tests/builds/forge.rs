//! A git server on loopback: `git http-backend` behind a small CGI, with Basic access.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

/// What has to be shown: `x-access-token:ghs_hunter22`.
pub(crate) const ACCESS: &str = "Basic eC1hY2Nlc3MtdG9rZW46Z2hzX2h1bnRlcjIy";

/// See the module.
pub(crate) struct Forge {
    folder: TempDir,
    pub(crate) url: String,
}

impl Forge {
    /// Serves one repository, `site.git`.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bare = folder.path().join("site.git");
        git(folder.path(), &["init", "--quiet", "--bare", "site.git"]);
        git(&bare, &["config", "http.receivepack", "false"]);
        git(
            folder.path(),
            &["init", "--quiet", "--initial-branch=main", "work"],
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/site.git", listener.local_addr().unwrap());
        let root = Arc::new(folder.path().to_owned());
        let app = Router::new().fallback(serve).with_state(root);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { folder, url }
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Where it lies on this machine.
    pub(crate) fn bare(&self) -> PathBuf {
        self.folder.path().join("site.git")
    }

    /// Writes files over what is there, commits, and pushes to a branch; the commit's name.
    pub(crate) fn commit(&self, branch: &str, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let path = self.work().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self.commit_all(branch)
    }

    /// Removes everything from the working folder.
    pub(crate) fn clear(&self) {
        for entry in fs::read_dir(self.work()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with(".git") {
                fs::remove_dir_all(path).unwrap();
            } else if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
    }

    /// Commits whatever is in the working folder.
    pub(crate) fn commit_all(&self, branch: &str) -> String {
        let work = self.work();
        git(&work, &["add", "--all", "--force"]);
        git(
            &work,
            &["commit", "--quiet", "--allow-empty", "--message", "x"],
        );
        git(
            &work,
            &[
                "push",
                "--quiet",
                "--force",
                "../site.git",
                &format!("HEAD:{branch}"),
            ],
        );
        git(&work, &["rev-parse", "HEAD"])
    }
}

/// Runs git, and gives what it says.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.com",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn serve(
    State(root): State<Arc<PathBuf>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    if text("authorization") != ACCESS {
        return (
            StatusCode::UNAUTHORIZED,
            [("www-authenticate", "Basic realm=\"git\"")],
        )
            .into_response();
    }
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root.as_path())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROTOCOL", text("git-protocol"))
        .env("HTTP_CONTENT_ENCODING", text("content-encoding"))
        .env("CONTENT_TYPE", text("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", method.as_str())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::spawn(async move {
        // One that has heard enough closes its end.
        let _ = stdin.write_all(&body).await;
    });
    let output = child.wait_with_output().await.unwrap().stdout;
    let end = output
        .windows(4)
        .position(|part| part == b"\r\n\r\n")
        .unwrap();
    let (mut status, mut answer) = (StatusCode::OK, Response::builder());
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        if name.eq_ignore_ascii_case("status") {
            status = StatusCode::from_bytes(value.split(' ').next().unwrap().as_bytes()).unwrap();
        } else {
            answer = answer.header(name, value);
        }
    }
    answer
        .status(status)
        .body(output[end + 4..].to_vec().into())
        .unwrap()
}
