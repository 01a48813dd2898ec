//! A repository behind a git server on loopback: `git http-backend`, as providers serve it, for whoever shows a password.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Who may read: user and password.
pub const CREDENTIAL: &str = "reader:letmein-letmein";
/// The same as git shows it (RFC 7617).
const AUTHORIZATION: &str = "Basic cmVhZGVyOmxldG1laW4tbGV0bWVpbg==";

/// A bare repository that is served, and a clone that pushes to it.
#[derive(Debug)]
pub struct Repository {
    folder: TempDir,
    path: String,
    /// Where it is fetched from.
    pub url: String,
}

impl Repository {
    /// An empty one at a path of `owner/name`.
    ///
    /// # Panics
    /// Without git, or when nothing can be listened on.
    #[must_use]
    pub fn serve(path: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join(path)).unwrap();
        git(
            &folder.path().join(path),
            &["init", "--quiet", "--bare", "."],
        );
        let clone = ["init", "--quiet", "--initial-branch=main", "clone"];
        git(folder.path(), &clone);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/{path}", listener.local_addr().unwrap());
        let root = folder.path().to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let root = root.clone();
                // Whoever asks sees what went wrong.
                std::thread::spawn(move || answer(stream, &root));
            }
        });
        Self {
            folder,
            path: path.to_owned(),
            url,
        }
    }

    /// Where files are before they are pushed.
    #[must_use]
    pub fn clone_folder(&self) -> PathBuf {
        self.folder.path().join("clone")
    }

    /// Writes files over what is there, commits, and pushes to a branch. The commit.
    ///
    /// # Panics
    /// When git does not.
    #[must_use]
    pub fn push(&self, branch: &str, files: &[(&str, &str)]) -> String {
        let clone = self.clone_folder();
        for (path, text) in files {
            fs::write(clone.join(path), text).unwrap();
        }
        git(&clone, &["add", "--all"]);
        git(&clone, &["commit", "--quiet", "--message", "x"]);
        let (to, head) = (format!("../{}", self.path), format!("HEAD:{branch}"));
        git(&clone, &["push", "--quiet", "--force", &to, &head]);
        git(&clone, &["rev-parse", "HEAD"])
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let who = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
    let output = Command::new("git")
        .args(who)
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

/// One request, and the end of the connection.
fn answer(stream: TcpStream, root: &Path) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first)?;
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.trim_end().split_once(": ") {
            head.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    let field = |name: &str| {
        let found = head.iter().find(|(found, _)| found == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let mut body = vec![0; field("content-length").parse().unwrap_or(0)];
    stream.read_exact(&mut body)?;
    if field("authorization") != AUTHORIZATION {
        let refused = b"HTTP/1.1 401 Who are you\r\nwww-authenticate: Basic realm=\"git\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return stream.get_mut().write_all(refused);
    }
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROTOCOL", field("git-protocol"))
        .env("HTTP_CONTENT_ENCODING", field("content-encoding"))
        .env("CONTENT_TYPE", field("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = backend.stdin.take() {
        // It may have heard enough before the end.
        let _ = stdin.write_all(&body);
    }
    let output = backend.wait_with_output()?.stdout;
    // CGI says the status in a field (RFC 3875, section 6.3.3).
    let is_status = |line: &&[u8]| line.to_ascii_lowercase().starts_with(b"status: ");
    let status = output.split(|byte| *byte == b'\n').find(is_status);
    let status = status.map_or("200 OK", |line| {
        std::str::from_utf8(&line[8..]).unwrap_or("500 Odd").trim()
    });
    let stream = stream.get_mut();
    stream.write_all(format!("HTTP/1.1 {status}\r\nconnection: close\r\n").as_bytes())?;
    stream.write_all(&output)
}
