//! Responses that a purge marks as stale: wherever they lie they are asked about, and not fetched anew.

use helix_edge::cache::purge::Purge;

use crate::cache::ask;
use crate::cache_disk::{Keeping, LARGE, MIB, files, killed, purge_record};
use crate::support::Edge;
use crate::upstream::Upstream;

/// An upstream whose responses have a validator, and that knows it again.
fn validating(length: usize) -> Upstream {
    let body = vec![b'a'; length];
    Upstream::answering(move |seen| {
        let head = "Cache-Control: max-age=600\r\nETag: \"a\"\r\n";
        if seen.fields("if-none-match") == ["\"a\""] {
            return format!("HTTP/1.1 304 Not Modified\r\n{head}\r\n").into_bytes();
        }
        let head = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {length}\r\n\r\n");
        [head.as_bytes(), &body].concat()
    })
}

/// What the site's operator marks.
fn everything() -> Purge {
    Purge {
        site: Some("calls/production".parse().unwrap()),
        mark_stale: true,
        ..Purge::default()
    }
}

/// Asks `edge`, which has to ask once whether what it has is still right, and then knows.
fn assert_asks_about_it(what: &str, edge: &Edge, upstream: &Upstream, length: usize) {
    let before = upstream.seen().len();
    for _ in 0..2 {
        let answer = ask(edge, "GET", "/a", "");
        assert_eq!((answer.status, answer.body.len()), (200, length), "{what}");
    }
    let asked: Vec<_> = upstream.seen().drain(before..).collect();
    assert_eq!(asked.len(), 1, "{what}");
    assert_eq!(asked[0].fields("if-none-match"), ["\"a\""], "{what}");
}

#[test]
fn a_response_on_disk_that_is_marked_as_stale_is_asked_about_and_not_fetched_anew() {
    for length in [10, LARGE] {
        let folder = tempfile::tempdir().unwrap();
        let upstream = validating(length);
        let before = Keeping::on(folder.path(), &upstream);
        assert_eq!(ask(&before.edge, "GET", "/a", "").body.len(), length);
        before.flush();
        before.until_kept(1);
        let purge = |keeping: &Keeping| keeping.edge.table.cache().store.purge(&everything());

        let copy = killed(folder.path());
        let here = Keeping::on(copy.path(), &upstream);
        assert_eq!(purge(&here), 1);
        assert_asks_about_it("while it runs", &here.edge, &upstream, length);

        let copy = killed(folder.path());
        let killed_then = Keeping::on(copy.path(), &upstream);
        assert_eq!(purge(&killed_then), 1);
        let copy = killed(copy.path());
        let again = Keeping::on(copy.path(), &upstream);
        assert_asks_about_it("after a restart", &again.edge, &upstream, length);

        let copy = killed(folder.path());
        let mut record = purge_record(1, "/a");
        record.purges[0].stale = true;
        let bytes = 64 * MIB as u64;
        let away = Keeping::with(copy.path(), &upstream, bytes, &[record]);
        assert_asks_about_it("purged while it was away", &away.edge, &upstream, length);
    }
}

#[test]
fn what_is_in_memory_and_marked_as_stale_is_so_on_disk() {
    for flushed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let upstream = validating(10);
        let before = Keeping::on(folder.path(), &upstream);
        ask(&before.edge, "GET", "/a", "");
        if flushed {
            before.flush();
        }
        // In both places it is one response.
        assert_eq!(before.edge.table.cache().store.purge(&everything()), 1);
        before.flush();
        let copy = killed(folder.path());
        let after = Keeping::on(copy.path(), &upstream);
        assert_asks_about_it("after a restart", &after.edge, &upstream, 10);
    }
}

#[test]
fn a_mark_goes_with_the_response_it_is_of() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = validating(10);
    let keeping = Keeping::on(folder.path(), &upstream);
    ask(&keeping.edge, "GET", "/a", "");
    keeping.flush();
    keeping.edge.table.cache().store.purge(&everything());
    assert_eq!(files(folder.path()).len(), 2);
    let gone = Purge {
        mark_stale: false,
        ..everything()
    };
    assert_eq!(keeping.edge.table.cache().store.purge(&gone), 1);
    assert_eq!(files(folder.path()).len(), 0);
}
