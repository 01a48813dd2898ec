//! Processes that an earlier `helix dev` left behind when it was killed.
//!
//! A process is ours only when its command line names our folder: the number in an old file may be
//! anybody's by now.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::child::END_LIMIT;
use super::home::Home;
use crate::output;

/// How often to look whether it is gone.
const LOOK: Duration = Duration::from_millis(20);

/// Ends what was left behind.
pub(super) async fn end_all(home: &Home) {
    let entries = fs::read_dir(home.run()).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let process = fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse::<i32>().ok());
        if let Some(process) = process.filter(|process| is_ours(*process, home.root())) {
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            output::say(&format!(
                "ending {name} (process {process}), left behind by an earlier helix dev"
            ));
            end(process, home.root()).await;
        }
        // Its process is gone; a file that stays is looked at again by the next start.
        let _ = fs::remove_file(&path);
    }
}

async fn end(process: i32, root: &Path) {
    let deadline = Instant::now() + END_LIMIT;
    // It may end between the look and the signal.
    let _ = kill(Pid::from_raw(process), Signal::SIGTERM);
    while is_ours(process, root) {
        if Instant::now() > deadline {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
        sleep(LOOK).await;
    }
}

fn is_ours(process: i32, root: &Path) -> bool {
    let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .any(|argument| argument.starts_with(root.as_os_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn cat(argument: &Path) -> std::process::Child {
        Command::new("/bin/sh")
            .args(["-c", "read line"])
            .arg(argument)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    }

    #[tokio::test]
    async fn only_a_process_of_this_folder_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let (mut ours, mut other) = (cat(&home.config("nats.conf")), cat(Path::new("/elsewhere")));
        fs::write(home.run().join("nats.pid"), ours.id().to_string()).unwrap();
        fs::write(home.run().join("origin.pid"), other.id().to_string()).unwrap();
        // The test is the parent, so it has to take the child's end for /proc to forget it.
        let reaped = tokio::task::spawn_blocking(move || ours.wait().unwrap());
        end_all(&home).await;
        assert!(!reaped.await.unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        assert_eq!(fs::read_dir(home.run()).unwrap().count(), 0);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
