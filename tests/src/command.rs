//! The command `helix`, run as a person runs it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// How one run ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// What it printed for a program.
    pub stdout: String,
    /// What it printed for a person.
    pub stderr: String,
}

impl Ended {
    /// Fails unless it ended with `code`.
    ///
    /// # Panics
    /// Then, with all that the command printed.
    #[track_caller]
    #[must_use]
    pub fn with(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "exit code\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Fails unless what it said has every one of `words`.
    ///
    /// # Panics
    /// Then, with all that the command printed.
    #[track_caller]
    pub fn says(&self, words: &[&str]) {
        for word in words {
            let found = self.stderr.contains(word) || self.stdout.contains(word);
            assert!(
                found,
                "{word:?} is missing\n--- stdout\n{}\n--- stderr\n{}",
                self.stdout, self.stderr
            );
        }
    }

    /// The object that `--json` printed.
    ///
    /// # Panics
    /// When it printed anything else.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!(
                "{error}\n--- stdout\n{}\n--- stderr\n{}",
                self.stdout, self.stderr
            )
        })
    }
}

/// `helix` with an address and a token.
#[derive(Clone, Debug)]
pub struct Helix {
    /// `HELIX_API`.
    pub api: String,
    /// `HELIX_TOKEN`.
    pub token: String,
}

impl Helix {
    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ended {
        finish(self.start(arguments))
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Child {
        Command::new(program("helix"))
            .args(arguments)
            .env("HELIX_API", &self.api)
            .env("HELIX_TOKEN", &self.token)
            .env_remove("HELIX_PROJECT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start helix: {error}; `make build` builds it"))
    }
}

/// Waits for a command that was started.
///
/// # Panics
/// When its output cannot be read.
#[must_use]
pub fn finish(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// One of our programs. It lies beside the benchmark, and in the folder above a test's binary.
///
/// # Panics
/// When the running program lies in no folder.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let running = std::env::current_exe().unwrap();
    let folder = running.parent().expect("a program lies in a folder");
    let profile = if folder.ends_with("deps") {
        folder.parent()
    } else {
        Some(folder)
    };
    profile.expect("deps lies in a profile's folder").join(name)
}
