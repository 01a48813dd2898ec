//! Responses that are kept on disk: found again after a restart, never when they were harmed or purged.
//!
//! A process that is killed leaves its folder as it is at that moment, so a copy of the folder stands for one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use helix_edge::cache::Cache;
use helix_edge::cache::disk::{Disk, DiskConfig};
use helix_edge::cache::purge::Purge;
use helix_routing::id::{Epoch, Generation};
use helix_routing::record::{PurgeEntry, PurgeRecord, PurgeUrl};
use helix_routing::time::Timestamp;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::cache::{ask, cached, response};
use crate::support::{Edge, KEPT, LIVE, PATIENCE};
use crate::upstream::{HOST, Upstream};

pub(crate) const MIB: usize = 1024 * 1024;
pub(crate) const LARGE: usize = 20 * MIB + 5;

/// An edge whose responses lie in a folder.
pub(crate) struct Keeping {
    pub(crate) edge: Edge,
    disk: Arc<Disk>,
    runtime: Runtime,
}

impl Keeping {
    pub(crate) fn on(folder: &Path, upstream: &Upstream) -> Self {
        Self::with(folder, upstream, 64 * MIB as u64, &[])
    }

    /// One that knew of these purges when it started.
    pub(crate) fn with(
        folder: &Path,
        upstream: &Upstream,
        bytes: u64,
        known: &[PurgeRecord],
    ) -> Self {
        Self::of(Cache::default(), folder, upstream, bytes, known)
    }

    fn of(
        cache: Cache,
        folder: &Path,
        upstream: &Upstream,
        bytes: u64,
        known: &[PurgeRecord],
    ) -> Self {
        let edge = Edge::caching(cache);
        let store = &edge.table.cache().store;
        let config = DiskConfig {
            folder: folder.to_owned(),
            bytes,
            max_body_bytes: 32 * MIB as u64,
        };
        let (purges, metrics) = (Arc::clone(store.purges()), edge.metrics.disk_cache.clone());
        let disk = Disk::open(config, purges, metrics).unwrap();
        store.attach(Arc::clone(&disk));
        for record in known {
            let purges = store.purges().adopt(record);
            store.forget(&purges);
        }
        cached(&edge, HOST, upstream.addr, LIVE);
        disk.begin();
        let runtime = Runtime::new().unwrap();
        runtime.block_on(disk.settle(PATIENCE));
        Self {
            edge,
            disk,
            runtime,
        }
    }

    fn text(&self, path: &str) -> String {
        ask(&self.edge, "GET", path, "").text().to_owned()
    }

    /// Lets everything lie on disk.
    pub(crate) fn flush(&self) {
        let store = &self.edge.table.cache().store;
        self.runtime.block_on(store.flush(PATIENCE));
    }

    pub(crate) fn counted(&self, event: &str) -> u64 {
        self.edge.metrics.disk_cache.counted(event)
    }

    /// Waits until so many responses are kept.
    pub(crate) fn until_kept(&self, count: u64) {
        let until = Instant::now() + PATIENCE;
        while self.counted("kept") < count {
            assert!(Instant::now() < until, "{} are kept", self.counted("kept"));
            std::thread::yield_now();
        }
        self.runtime.block_on(self.disk.settle(PATIENCE));
    }
}

/// The folder as a killed process leaves it.
pub(crate) fn killed(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in files(folder) {
        let to = copy.path().join(file.strip_prefix(folder).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, &to).unwrap();
        // When each was last used.
        let used = fs::metadata(&file).unwrap().modified().unwrap();
        let to = File::options().write(true).open(to).unwrap();
        to.set_modified(used).unwrap();
    }
    copy
}

/// Every file of a stored response.
pub(crate) fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some() {
            found.insert(path);
        }
    }
    found
}

fn bytes_of(folder: &Path) -> u64 {
    let files = files(folder).into_iter();
    files.map(|file| fs::metadata(file).unwrap().len()).sum()
}

/// An upstream that says how often it was asked.
fn counting(more: &'static str) -> Upstream {
    let asked = AtomicUsize::new(0);
    Upstream::answering(move |_| {
        let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
        response("max-age=600", more, &format!("answer {number}"))
    })
}

fn large() -> Vec<u8> {
    (0..LARGE).map(|at| (at / 7 % 251) as u8).collect()
}

/// An upstream that sends a large body without its length, each time with another first byte.
fn large_upstream(more: &'static str) -> Upstream {
    let asked = AtomicUsize::new(0);
    Upstream::answering(move |_| {
        let mut body = large();
        body[0] = u8::try_from(asked.fetch_add(1, Ordering::SeqCst) + 1).unwrap();
        let mut sent =
            format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n{more}Transfer-Encoding: chunked\r\n\r\n")
                .into_bytes();
        for part in body.chunks(MIB / 3) {
            sent.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            sent.extend_from_slice(part);
            sent.extend_from_slice(b"\r\n");
        }
        sent.extend_from_slice(b"0\r\n\r\n");
        sent
    })
}

/// A large response, read whole: how often the upstream had been asked.
fn get_large(edge: &Edge) -> u8 {
    let mut client = edge.client();
    client.send(format!("GET /large HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let head = client.head();
    assert_eq!(head.status, 200);
    let body = match head.header("content-length") {
        Some(length) => client.take(length.parse().unwrap()),
        None => client.chunked_body(),
    };
    assert_eq!(body.len(), LARGE);
    assert!(body[1..] == large()[1..], "the body was changed");
    body[0]
}

pub(crate) fn purge_record(generation: u64, path: &str) -> PurgeRecord {
    PurgeRecord {
        site: "calls/production".parse().unwrap(),
        region: "fra".parse().unwrap(),
        epoch: Epoch(1),
        generation: Generation(generation),
        purges: vec![PurgeEntry {
            at: Timestamp::from_millis(0),
            release: None,
            urls: vec![PurgeUrl {
                authority: HOST.to_owned(),
                target: path.to_owned(),
            }],
            tags: Vec::new(),
            stale: false,
        }],
    }
}

#[test]
fn a_restart_finds_what_was_on_disk_and_its_age_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = counting("Age: 100\r\nETag: \"a\"\r\nVary: Accept-Language\r\n");
    let before = Keeping::on(folder.path(), &upstream);
    assert_eq!(before.text("/a"), "answer 1");
    let german = "Accept-Language: de\r\n";
    assert_eq!(ask(&before.edge, "GET", "/a", german).text(), "answer 2");
    before.flush();
    let copy = killed(folder.path());
    let after = Keeping::on(copy.path(), &upstream);
    let again = ask(&after.edge, "GET", "/a", "");
    assert_eq!(again.text(), "answer 1");
    let status = again.header("cache-status").unwrap();
    assert!(status.starts_with("helix; hit; ttl="), "{status}");
    let age: u64 = again.header("age").unwrap().parse().unwrap();
    assert!((100..200).contains(&age), "{age}");
    assert_eq!(again.header("etag"), Some("\"a\""));
    assert_eq!(ask(&after.edge, "GET", "/a", german).text(), "answer 2");
    let part = ask(&after.edge, "GET", "/a", "Range: bytes=0-1\r\n");
    assert_eq!((part.status, part.text()), (206, "an"));
    let known = ask(&after.edge, "GET", "/a", "If-None-Match: \"a\"\r\n");
    assert_eq!(known.status, 304);
    assert_eq!(
        ask(&after.edge, "GET", "/a", "Accept-Language: fr\r\n").text(),
        "answer 3"
    );
    cached(&after.edge, HOST, upstream.addr, KEPT);
    assert_eq!(after.text("/a"), "answer 4", "another release asks anew");
    assert_eq!((upstream.seen().len(), after.counted("hit")), (4, 2));
}

#[test]
fn what_is_used_again_and_lasts_is_found_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::answering(|seen| {
        let control = if seen.head.contains("/brief") {
            "max-age=30"
        } else {
            "max-age=600"
        };
        response(control, "", "kept")
    });
    let before = Keeping::on(folder.path(), &upstream);
    for path in ["/once", "/again", "/brief"] {
        before.text(path);
    }
    for path in ["/again", "/brief", "/again", "/again"] {
        assert_eq!(before.text(path), "kept");
    }
    before.until_kept(1);
    let copy = killed(folder.path());
    let asked = upstream.seen().len();
    let after = Keeping::on(copy.path(), &upstream);
    assert_eq!(after.text("/again"), "kept");
    assert_eq!(upstream.seen().len(), asked, "it was on disk");
    for path in ["/once", "/brief"] {
        assert_eq!(after.text(path), "kept");
    }
    assert_eq!(upstream.seen().len(), asked + 2, "they were not");
    assert_eq!(before.counted("kept"), 1);
}

#[test]
fn what_was_purged_does_not_come_back_with_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = counting("Cache-Tag: news\r\n");
    let before = Keeping::on(folder.path(), &upstream);
    for (path, answer) in [("/a", "answer 1"), ("/b", "answer 2"), ("/c", "answer 3")] {
        assert_eq!(before.text(path), answer);
    }
    before.flush();
    // One changed, one purged here, one purged by the fleet while the process was away.
    let changed = ask(&before.edge, "POST", "/a", "Content-Length: 0\r\n");
    assert_eq!(changed.text(), "answer 4");
    let url = |path: &str| Purge {
        site: Some("calls/production".parse().unwrap()),
        host: Some(HOST.to_owned()),
        target: Some(path.to_owned()),
        ..Purge::default()
    };
    assert_eq!(before.edge.table.cache().store.purge(&url("/b")), 1);
    let copy = killed(folder.path());
    assert_eq!(files(copy.path()).len(), 1);
    let record = purge_record(1, "/c");
    let bytes = 64 * MIB as u64;
    let after = Keeping::with(copy.path(), &upstream, bytes, std::slice::from_ref(&record));
    for (path, answer) in [("/a", "answer 5"), ("/b", "answer 6"), ("/c", "answer 7")] {
        assert_eq!(after.text(path), answer);
    }
    // What is fetched after a purge has lived through it, and what the fleet purged elsewhere leaves it alone.
    after.flush();
    let copy = killed(copy.path());
    let again = Keeping::with(copy.path(), &upstream, bytes, &[record]);
    assert_eq!(again.text("/c"), "answer 7");
    let copy = killed(copy.path());
    let elsewhere = Keeping::with(copy.path(), &upstream, bytes, &[purge_record(2, "/x")]);
    assert_eq!(elsewhere.text("/c"), "answer 7");
    let copy = killed(copy.path());
    let missed = Keeping::with(copy.path(), &upstream, bytes, &[purge_record(9, "/x")]);
    assert_eq!(
        missed.text("/c"),
        "answer 8",
        "more were missed than are listed"
    );
    let copy = killed(copy.path());
    let lost = Keeping::on(copy.path(), &upstream);
    assert_eq!(lost.text("/c"), "answer 9", "nobody knows what was purged");
}

#[test]
fn a_harmed_file_is_never_served_and_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = counting("");
    let before = Keeping::on(folder.path(), &upstream);
    assert_eq!(before.text("/a"), "answer 1");
    assert_eq!(before.text("/b"), "answer 2");
    before.flush();
    let [first, second] = <[_; 2]>::try_from(Vec::from_iter(files(folder.path()))).unwrap();
    let length = fs::metadata(&first).unwrap().len() as usize;
    let mut asked = 2;
    let mut harm = |what: &str, harm: &dyn Fn(&Path, &Path)| {
        let copy = killed(folder.path());
        let of = |file: &Path| copy.path().join(file.strip_prefix(folder.path()).unwrap());
        harm(&of(&first), &of(&second));
        let there = files(copy.path()).len() as u64;
        let after = Keeping::on(copy.path(), &upstream);
        let texts = BTreeSet::from([after.text("/a"), after.text("/b")]);
        let anew = upstream.seen().len() - asked;
        assert!(anew > 0, "{what}: it was believed");
        asked += anew;
        for text in texts {
            assert!(
                text.starts_with("answer ") && text.len() <= 10,
                "{what}: {text}"
            );
        }
        after.runtime.block_on(after.disk.settle(PATIENCE));
        let found = after.counted("damaged") + after.counted("outdated");
        assert!(found > 0, "{what}: it was not counted");
        let left = files(copy.path()).len() as u64;
        assert_eq!(left + found, there, "{what}: it was not deleted");
    };
    for at in [0, 3, 4, 8, 39, 40, 60, length - 9, length - 8, length - 1] {
        harm(&format!("byte {at}"), &|first, _| {
            let mut bytes = fs::read(first).unwrap();
            bytes[at] ^= 1;
            fs::write(first, bytes).unwrap();
        });
    }
    for kept in [0, 10, 100, length - 1, length + 1] {
        harm(&format!("{kept} bytes"), &|first, _| {
            let file = fs::OpenOptions::new().write(true).open(first).unwrap();
            file.set_len(kept as u64).unwrap();
        });
    }
    harm("swapped", &|first, second| {
        let (one, other) = (fs::read(first).unwrap(), fs::read(second).unwrap());
        fs::write(first, other).unwrap();
        fs::write(second, one).unwrap();
    });
    harm("replaced", &|first, second| {
        fs::rename(second, first).unwrap()
    });
}

#[test]
fn a_large_body_is_kept_while_it_comes_and_shared_with_who_joins() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = large_upstream("ETag: \"a\"\r\n");
    let before = Keeping::on(folder.path(), &upstream);
    let ready = Barrier::new(3);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    ready.wait();
                    get_large(&before.edge)
                })
            })
            .collect();
        for client in clients {
            assert_eq!(client.join().unwrap(), 1);
        }
    });
    assert_eq!(upstream.seen().len(), 1);
    before.until_kept(1);
    assert_eq!(get_large(&before.edge), 1);
    let copy = killed(folder.path());
    let after = Keeping::on(copy.path(), &upstream);
    assert_eq!(get_large(&after.edge), 1);
    let part = ask(
        &after.edge,
        "GET",
        "/large",
        "Range: bytes=20000000-20000004\r\n",
    );
    assert_eq!(part.status, 206);
    assert_eq!(part.body, large()[20_000_000..20_000_005]);
    let head = ask(&after.edge, "HEAD", "/large", "");
    assert_eq!(head.status, 200);
    assert_eq!(
        ask(&after.edge, "GET", "/large", "If-None-Match: \"a\"\r\n").status,
        304
    );
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_range_of_a_large_body_is_read_and_checked_alone() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = large_upstream("");
    let before = Keeping::on(folder.path(), &upstream);
    assert_eq!(get_large(&before.edge), 1);
    before.until_kept(1);
    let copy = killed(folder.path());
    let body = files(copy.path())
        .into_iter()
        .find(|file| file.extension().unwrap() == "b");
    let body = body.unwrap();
    let mut bytes = fs::read(&body).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&body, bytes).unwrap();
    let after = Keeping::on(copy.path(), &upstream);
    let part = ask(
        &after.edge,
        "GET",
        "/large",
        "Range: bytes=100000-100004\r\n",
    );
    assert_eq!(
        (part.status, &part.body[..]),
        (206, &large()[100_000..100_005])
    );
    assert_eq!(upstream.seen().len(), 1, "what is whole is used");
    // What follows the harm is found when it is read: the client sees that the response is not whole.
    let mut client = after.edge.client();
    client.send(format!("GET /large HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(client.head().status, 200);
    assert!(client.bytes_until_the_end() < LARGE);
    assert_eq!(get_large(&after.edge), 2, "and the next one gets another");
    assert_eq!(after.counted("damaged"), 1);
}

#[test]
fn a_304_refreshes_a_large_body_that_lies_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let body = large();
    let upstream = Upstream::answering(move |seen| {
        if seen.fields("if-none-match") == ["\"a\""] {
            return b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=600\r\nETag: \"a\"\r\n\r\n".to_vec();
        }
        let length = body.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=0\r\nETag: \"a\"\r\nContent-Length: {length}\r\n\r\n"
        );
        [head.as_bytes(), &body].concat()
    });
    let keeping = Keeping::on(folder.path(), &upstream);
    assert_eq!(get_large(&keeping.edge), 0);
    keeping.until_kept(1);
    assert_eq!(get_large(&keeping.edge), 0);
    keeping.runtime.block_on(keeping.disk.settle(PATIENCE));
    let copy = killed(folder.path());
    let after = Keeping::on(copy.path(), &upstream);
    assert_eq!(get_large(&after.edge), 0);
    assert_eq!(
        upstream.seen().len(),
        2,
        "it is fresh again, also after a restart"
    );
    assert_eq!(files(copy.path()).len(), 2);
}

#[test]
fn disk_is_bounded_and_what_was_not_used_for_longest_goes_first() {
    const BOUND: u64 = 256 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let body = "x".repeat(20_000);
    let upstream = Upstream::answering(move |_| response("max-age=600", "", &body));
    // Without room in memory, so that each comes to the disk in its turn.
    let before = Keeping::of(Cache::new(1), folder.path(), &upstream, BOUND, &[]);
    for number in 0..30 {
        before.text(&format!("/{number}"));
        before.flush();
        assert!(bytes_of(folder.path()) <= BOUND);
    }
    assert!(before.counted("evicted") >= 15);
    let copy = killed(folder.path());
    let after = Keeping::with(copy.path(), &upstream, BOUND / 2, &[]);
    assert!(
        bytes_of(copy.path()) <= BOUND / 2,
        "a smaller bound counts from the start"
    );
    let asked = upstream.seen().len();
    after.text("/29");
    assert_eq!(upstream.seen().len(), asked, "the newest is there");
    after.text("/0");
    assert_eq!(upstream.seen().len(), asked + 1, "the oldest is not");
    // A body that has no room passes through.
    let upstream = large_upstream("");
    cached(&after.edge, HOST, upstream.addr, LIVE);
    assert_eq!((get_large(&after.edge), get_large(&after.edge)), (1, 2));
    assert!(bytes_of(copy.path()) <= BOUND / 2);
}

#[test]
fn a_large_body_that_nobody_reads_any_more_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = large_upstream("");
    let keeping = Keeping::on(folder.path(), &upstream);
    let mut client = keeping.edge.client();
    client.send(format!("GET /large HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let _ = client.head();
    drop(client);
    keeping.edge.until_idle();
    let until = Instant::now() + PATIENCE;
    while !files(folder.path()).is_empty() && keeping.counted("kept") == 0 {
        assert!(Instant::now() < until, "its file stays");
        std::thread::yield_now();
    }
    assert!(get_large(&keeping.edge) <= 2);
}

#[test]
fn a_disk_that_is_full_or_not_there_takes_nothing_from_visitors() {
    let folder = tempfile::tempdir().unwrap();
    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(&full)
        .output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        eprintln!("skipped: no tmpfs can be mounted here");
        return;
    }
    let upstream = large_upstream("");
    let keeping = Keeping::on(&full, &upstream);
    let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        assert_eq!((get_large(&keeping.edge), get_large(&keeping.edge)), (1, 2));
        assert!(keeping.counted("failed") > 0);
        let small = counting("");
        cached(&keeping.edge, HOST, small.addr, LIVE);
        assert_eq!(keeping.text("/a"), "answer 1");
        assert_eq!(keeping.text("/a"), "answer 1");
    }));
    drop(keeping);
    let left = std::process::Command::new("umount")
        .arg("-l")
        .arg(&full)
        .status();
    assert!(left.unwrap().success());
    served.unwrap();
    // No folder can be made where a file is: the edge has to do without.
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let store = Cache::default().store;
    let config = DiskConfig {
        folder: file,
        bytes: 1,
        max_body_bytes: 1,
    };
    let metrics = Edge::start().metrics.disk_cache.clone();
    assert!(Disk::open(config, Arc::clone(store.purges()), metrics).is_err());
}
