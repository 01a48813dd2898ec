//! The sandbox in bubblewrap's words.
//!
//! *Pure*. Inside there is a read-only system, the build's own space, an empty `/tmp` of limited size, and no network. The user is
//! always the same one and may become no other.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Task;

/// Who the build is inside, whoever it is outside.
const USER: &str = "1000";
/// Where the worker's own program is inside.
const PROGRAM: &str = "/run/helix-build";
/// Where the folder with the egress proxy's socket is inside.
pub(crate) const CONTROL: &str = "/run/helix";
/// Bytes of `/tmp` and of `/dev/shm`, which are memory.
const TMP_BYTES: &str = "1073741824";

/// Parts of the system that programs cannot do without; those that a machine has not are left out.
const SYSTEM: &[&str] = &[
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/ssl",
];

/// A system folder that is either itself or a link into `/usr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SystemFolder {
    /// Where the link leads.
    Link(PathBuf),
    /// It is one.
    Folder,
}

/// How `task` is run: everything behind bubblewrap's own name. `folders` are `/bin`, `/lib` and so on, as this machine has them;
/// `program` is the worker's own.
pub(crate) fn arguments(
    task: &Task,
    folders: &[(&str, SystemFolder)],
    program: &std::path::Path,
    control: &std::path::Path,
) -> Vec<OsString> {
    let mut line = Line(Vec::new());
    line.add(&[
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--as-pid-1",
        "--clearenv",
    ]);
    line.add(&[
        "--hostname",
        "build",
        "--uid",
        USER,
        "--gid",
        USER,
        "--cap-drop",
        "ALL",
    ]);
    line.add(&["--ro-bind", "/usr", "/usr"]);
    for (path, kind) in folders {
        match kind {
            SystemFolder::Link(target) => {
                line.add(&["--symlink"]).path(target).add(&[path]);
            }
            SystemFolder::Folder => {
                line.add(&["--ro-bind", path, path]);
            }
        }
    }
    for path in SYSTEM {
        line.add(&["--ro-bind-try", path, path]);
    }
    for name in ["passwd", "group", "hosts"] {
        line.add(&["--ro-bind"])
            .path(&control.join(name))
            .add(&[&format!("/etc/{name}")]);
    }
    line.add(&["--proc", "/proc", "--dev", "/dev"]);
    line.add(&[
        "--size", TMP_BYTES, "--tmpfs", "/dev/shm", "--size", TMP_BYTES, "--tmpfs", "/tmp",
    ]);
    line.add(&["--ro-bind"]).path(program).add(&[PROGRAM]);
    line.add(&["--ro-bind"])
        .path(&control.join("egress"))
        .add(&[CONTROL]);
    for mount in &task.mounts {
        let kind = if mount.writable {
            "--bind"
        } else {
            "--ro-bind"
        };
        line.add(&[kind]).path(&mount.outside).add(&[&mount.inside]);
    }
    // What bubblewrap made itself would else be memory to fill.
    line.add(&["--remount-ro", "/dev", "--remount-ro", "/"]);
    line.add(&["--", PROGRAM, super::init::INIT]);
    line.0
}

struct Line(Vec<OsString>);

impl Line {
    fn add(&mut self, words: &[&str]) -> &mut Self {
        self.0.extend(words.iter().map(OsString::from));
        self
    }

    fn path(&mut self, path: &std::path::Path) -> &mut Self {
        self.0.push(path.as_os_str().to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Mount;
    use std::path::Path;

    #[test]
    fn nothing_but_the_space_is_writable_and_nothing_is_shared() {
        let task = Task {
            mounts: vec![Mount {
                outside: PathBuf::from("/var/x"),
                inside: "/build".to_owned(),
                writable: true,
            }],
            ..Task::of("true")
        };
        let folders = [("/bin", SystemFolder::Link(PathBuf::from("usr/bin")))];
        let line = arguments(&task, &folders, Path::new("/p"), Path::new("/c"));
        let words: Vec<&str> = line.iter().map(|word| word.to_str().unwrap()).collect();
        let text = words.join(" ");
        assert!(words.contains(&"--unshare-all") && !text.contains("--share-net"));
        assert_eq!(words.iter().filter(|word| **word == "--bind").count(), 1);
        assert!(
            text.contains("--symlink usr/bin /bin")
                && text.ends_with("-- /run/helix-build sandbox-init")
        );
        // Later words of bubblewrap's count: the root is closed after everything is in it.
        assert!(text.find("--bind /var/x").unwrap() < text.find("--remount-ro /").unwrap());
    }
}
