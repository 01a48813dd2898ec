//! Control groups: memory, processes and processors of a whole build, in version 1 or 2, where this process may make them.
//!
//! A machine where it may not is no error: limits of each process stand in, and [`Groups::described`] says so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

/// How long what was killed may take to go: the kernel writes back what a process had mapped.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(5);
/// In so much time, in microseconds, a build may take its share of processors: the kernel's own default.
const PERIOD: f64 = 100_000.0;
/// The kernel takes no shorter part of that.
const SHORTEST: f64 = 1_000.0;

/// What a build may use at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    pub(crate) memory_bytes: u64,
    pub(crate) processes: u64,
    pub(crate) processors: Option<f64>,
}

impl Most {
    /// Microseconds of processors' time in each period.
    fn quota(self) -> Option<String> {
        let share = (self.processors? * PERIOD).max(SHORTEST);
        Some(format!("{share:.0}"))
    }
}

/// The groups that a build's processes are in. They go with it.
#[derive(Debug)]
pub(crate) struct Groups {
    folders: Vec<PathBuf>,
    memory: Option<PathBuf>,
    processes: Option<PathBuf>,
    /// Whether processors are limited as they were to be.
    processors: bool,
    unified: bool,
}

/// What of a group's limits was run into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) memory: bool,
    pub(crate) processes: bool,
}

impl Groups {
    /// Makes the groups of build `name` below those of this process. `root` is where they are mounted, `own` what
    /// `/proc/self/cgroup` says.
    pub(crate) fn make(root: &Path, own: &str, name: &str, most: Most) -> Self {
        let mut groups = Self {
            folders: Vec::new(),
            memory: None,
            processes: None,
            processors: most.processors.is_none(),
            unified: false,
        };
        if root.join("cgroup.controllers").exists() {
            groups.unified(root, own, name, most);
        } else {
            groups.separate(root, own, name, most);
        }
        groups
    }

    fn unified(&mut self, root: &Path, own: &str, name: &str, most: Most) {
        let Some(base) = unified_base(root, own) else {
            return;
        };
        // Groups that hold processes have no groups with limits below them: this process goes one down, once.
        let enable = || fs::write(base.join("cgroup.subtree_control"), "+memory +pids");
        if enable().is_err() {
            let worker = base.join("worker");
            let moved = make_folder(&worker).and_then(|()| {
                fs::write(worker.join("cgroup.procs"), std::process::id().to_string())
            });
            if moved.and_then(|()| enable()).is_err() {
                return;
            }
        }
        let folder = base.join(name);
        let limited = make_folder(&folder)
            .and_then(|()| fs::write(folder.join("memory.max"), most.memory_bytes.to_string()))
            .and_then(|()| fs::write(folder.join("pids.max"), most.processes.to_string()));
        // Absent where swap is not counted.
        let _ = fs::write(folder.join("memory.swap.max"), "0");
        if let Some(quota) = most.quota() {
            // Of its own, so that a machine without this controller limits the rest.
            let _ = fs::write(base.join("cgroup.subtree_control"), "+cpu");
            let limited = fs::write(folder.join("cpu.max"), format!("{quota} {PERIOD:.0}"));
            self.processors = limited.is_ok();
        }
        if limited.is_ok() {
            self.memory = Some(folder.join("memory.events"));
            self.processes = Some(folder.join("pids.events"));
            self.unified = true;
        }
        self.folders.push(folder);
    }

    fn separate(&mut self, root: &Path, own: &str, name: &str, most: Most) {
        let set = |controller: &str, file: &str, value: &str| -> Option<PathBuf> {
            let folder = base_of(root, own, controller)?.join(name);
            let made = make_folder(&folder).and_then(|()| fs::write(folder.join(file), value));
            made.ok().map(|()| folder)
        };
        let memory = most.memory_bytes.to_string();
        if let Some(folder) = set("memory", "memory.limit_in_bytes", &memory) {
            // Absent where swap is not counted.
            let _ = fs::write(folder.join("memory.memsw.limit_in_bytes"), memory);
            self.memory = Some(folder.join("memory.oom_control"));
            self.folders.push(folder);
        }
        if let Some(folder) = set("pids", "pids.max", &most.processes.to_string()) {
            self.processes = Some(folder.join("pids.events"));
            self.folders.push(folder);
        }
        if let Some(quota) = most.quota() {
            let folder = set("cpu", "cpu.cfs_quota_us", &quota);
            self.processors = folder.is_some();
            self.folders.extend(folder);
        }
    }

    /// The groups whose names begin with `start`: of builds that were cut off.
    pub(crate) fn left(root: &Path, own: &str, start: &str) -> Self {
        let bases = ["cpu", "memory", "pids"]
            .iter()
            .filter_map(|controller| base_of(root, own, controller));
        let entries = bases
            .chain(unified_base(root, own))
            .filter_map(|base| fs::read_dir(base).ok());
        let folders = entries.flatten().filter_map(Result::ok);
        let folders =
            folders.filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
        Self {
            folders: folders.map(|entry| entry.path()).collect(),
            memory: None,
            processes: None,
            processors: false,
            unified: true,
        }
    }

    /// Folders to be joined.
    pub(crate) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Whether memory is limited for all processes together.
    pub(crate) const fn limit_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Whether processes are counted together.
    pub(crate) const fn limit_processes(&self) -> bool {
        self.processes.is_some()
    }

    /// How limits are kept, for the log.
    pub(crate) fn described(&self) -> String {
        let processors = if self.processors {
            ""
        } else {
            "; processors are not, for want of the control group"
        };
        format!("{}{processors}", self.kinds())
    }

    const fn kinds(&self) -> &'static str {
        match (
            self.unified,
            self.memory.is_some(),
            self.processes.is_some(),
        ) {
            (true, _, _) => "memory and processes are limited by control groups (version 2)",
            (false, true, true) => "memory and processes are limited by control groups (version 1)",
            (false, true, false) => {
                "memory is limited by control groups (version 1), processes for each user"
            }
            (false, false, true) => {
                "processes are limited by control groups (version 1), memory for each process"
            }
            (false, false, false) => {
                "no control groups can be made here: memory is limited for each process, processes for each user"
            }
        }
    }

    /// What was run into so far.
    pub(crate) fn reached(&self) -> Reached {
        let count = |file: &Option<PathBuf>, names: &[&str]| {
            let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
            text.is_some_and(|text| counted(&text, names))
        };
        Reached {
            memory: count(&self.memory, &["oom_kill"]),
            processes: count(&self.processes, &["max"]),
        }
    }

    /// Ends whatever is still in the groups, and waits until it is gone and they are.
    pub(crate) async fn end(self) {
        let deadline = Instant::now() + GONE_WITHIN;
        while !self.remove() && Instant::now() < deadline {
            sleep(LOOK).await;
        }
    }

    /// Whether the groups are gone. What is in them is killed.
    fn remove(&self) -> bool {
        let mut gone = true;
        for folder in &self.folders {
            // Version 2 has a word for it.
            let _ = fs::write(folder.join("cgroup.kill"), "1");
            for pid in members(folder) {
                // One that is gone already is what is wanted.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            gone &= match fs::remove_dir(folder) {
                Ok(()) => true,
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            };
        }
        gone
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // Whoever does not wait leaves at worst empty groups.
        self.remove();
    }
}

/// The folder of this process's own group of version 2, or of the one above where it has gone down.
fn unified_base(root: &Path, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let base = root.join(path.trim_start_matches('/'));
    let above = base.parent().filter(|_| base.ends_with("worker"));
    Some(above.unwrap_or(&base).to_owned())
}

fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn members(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process of another namespace, and would be this one here.
    text.lines()
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid| *pid > 1)
        .collect()
}

/// The folder of this process's own group of a controller; its root where that is not to be seen from here.
fn base_of(root: &Path, own: &str, controller: &str) -> Option<PathBuf> {
    let mounted = root.join(controller);
    if !mounted.is_dir() {
        return None;
    }
    let path = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    });
    let own = mounted.join(path.unwrap_or_default().trim_start_matches('/'));
    Some(if own.is_dir() { own } else { mounted })
}

/// Whether one of the counters is above nothing.
fn counted(text: &str, names: &[&str]) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|name| names.contains(&name))
            && words
                .next()
                .and_then(|count| count.parse::<u64>().ok())
                .is_some_and(|count| count > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most {
        memory_bytes: 1 << 20,
        processes: 7,
        processors: Some(1.5),
    };

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn version_1_is_written_below_the_own_group() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("memory/a/b")).unwrap();
        fs::create_dir_all(root.path().join("pids")).unwrap();
        fs::create_dir_all(root.path().join("cpu")).unwrap();
        let own = "8:pids:/gone\n4:memory:/a/b\n0::/\n";
        let groups = Groups::make(root.path(), own, "one", MOST);
        assert_eq!(
            read(&root.path().join("memory/a/b/one/memory.limit_in_bytes")),
            "1048576"
        );
        assert_eq!(read(&root.path().join("pids/one/pids.max")), "7");
        assert_eq!(
            read(&root.path().join("cpu/one/cpu.cfs_quota_us")),
            "150000"
        );
        assert!(groups.described().ends_with("(version 1)"));
        fs::write(
            root.path().join("memory/a/b/one/memory.oom_control"),
            "oom_kill_disable 0\noom_kill 2\n",
        )
        .unwrap();
        assert_eq!(
            groups.reached(),
            Reached {
                memory: true,
                processes: false
            }
        );
        std::mem::forget(groups);
    }

    #[test]
    fn version_2_is_written_beside_the_worker() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "memory pids").unwrap();
        fs::create_dir_all(root.path().join("service/worker")).unwrap();
        let groups = Groups::make(root.path(), "0::/service/worker\n", "one", MOST);
        let folder = root.path().join("service/one");
        assert_eq!(
            (
                read(&folder.join("memory.max")),
                read(&folder.join("pids.max"))
            ),
            ("1048576".to_owned(), "7".to_owned())
        );
        assert_eq!(read(&folder.join("cpu.max")), "150000 100000");
        assert!(groups.described().ends_with("(version 2)"));
        std::mem::forget(groups);
    }

    #[test]
    fn nothing_to_write_to_is_said() {
        let root = tempfile::tempdir().unwrap();
        let groups = Groups::make(root.path(), "", "one", MOST);
        assert!(!groups.limit_memory() && !groups.limit_processes());
        assert!(groups.described().contains("for each process"));
        assert!(groups.described().contains("processors are not"));
    }
}
