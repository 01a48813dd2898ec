//! Folders as people have them: odd names, odd sizes, things that are no files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use helix_tests::fleet::Fleet;
use helix_tests::folder::{Folder, noise};
use helix_tests::skipped;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;

/// Fails unless a deployment of `folder` is refused with every one of `words`, and leaves nothing behind.
#[track_caller]
fn refused(fleet: &Fleet, project: &str, folder: &Folder, words: &[&str]) {
    fleet
        .deploy_to(project, "production", folder.path())
        .with(1)
        .says(words);
    assert!(
        fleet.api().site(&format!("{project}/production")).is_none(),
        "{project} was made"
    );
}

#[test]
fn folders_that_are_missing_or_empty_are_refused() {
    let fleet = Fleet::shared();
    let missing = Folder::empty().path().join("nothing-here");
    fleet
        .deploy_to("f-missing", "production", &missing)
        .with(1)
        .says(&["nothing-here"]);
    refused(&fleet, "f-empty", &Folder::empty(), &[]);
    let file = Folder::page("a file");
    let _ = fleet
        .deploy_to("f-file", "production", &file.path().join("index.html"))
        .with(1);
}

#[test]
fn what_is_no_file_of_the_folder_is_refused_by_name() {
    let fleet = Fleet::shared();
    let folder = Folder::page("links");
    symlink("/etc/hostname", folder.path().join("out.txt")).unwrap();
    refused(&fleet, "f-link", &folder, &["out.txt", "/etc/hostname"]);

    let folder = Folder::page("pipe");
    mkfifo(&folder.path().join("pipe"), Mode::S_IRWXU).unwrap();
    refused(&fleet, "f-pipe", &folder, &["pipe"]);

    let folder = Folder::page("names");
    fs::write(folder.path().join(OsStr::from_bytes(b"bad-\xff.txt")), b"x").unwrap();
    refused(&fleet, "f-utf8", &folder, &["bad-", "UTF-8"]);

    let folder = Folder::page("device");
    let device = folder.path().join("null");
    match mknod(&device, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)) {
        Ok(()) => refused(&fleet, "f-device", &folder, &["null"]),
        Err(error) => skipped(&format!("no device node can be made: {error}")),
    }
}

#[test]
fn a_file_that_cannot_be_read_is_refused_by_name() {
    let fleet = Fleet::shared();
    let folder = Folder::page("secret").with("closed.txt", b"x");
    fs::set_permissions(
        folder.path().join("closed.txt"),
        fs::Permissions::from_mode(0o000),
    )
    .unwrap();
    if fs::read(folder.path().join("closed.txt")).is_ok() {
        skipped("this user reads every file");
        return;
    }
    refused(&fleet, "f-closed", &folder, &["closed.txt"]);
}

#[test]
fn links_within_the_folder_are_files() {
    let fleet = Fleet::shared();
    let folder = Folder::page("within").with("a/real.txt", b"real");
    symlink("a/real.txt", folder.path().join("link.txt")).unwrap();
    let _ = fleet.deploy("f-within", &folder);
    fleet.all_answer(&fleet.host("f-within"), "/link.txt", 200, Some(b"real"));
}

#[test]
fn odd_but_legal_names_and_sizes_are_served_exactly() {
    let fleet = Fleet::shared();
    let folder = Folder::page("odd")
        .with("empty.txt", b"")
        .with("Twin.txt", b"upper")
        .with("twin.txt", b"lower")
        .with("with space.txt", b"space")
        .with("100%.txt", b"percent")
        .with("b\u{fc}cher.txt", "\u{fc}".as_bytes())
        .with("a/b/c/d/e.txt", b"deep");
    let _ = fleet.deploy("f-odd", &folder);
    let host = fleet.host("f-odd");
    let cases: [(&str, &[u8]); 7] = [
        ("/empty.txt", b""),
        ("/Twin.txt", b"upper"),
        ("/twin.txt", b"lower"),
        ("/with%20space.txt", b"space"),
        ("/100%25.txt", b"percent"),
        ("/b%C3%BCcher.txt", "\u{fc}".as_bytes()),
        ("/a/b/c/d/e.txt", b"deep"),
    ];
    for (target, body) in cases {
        fleet.all_answer(&host, target, 200, Some(body));
    }
    for target in ["/TWIN.txt", "/../index.html", "/%2e%2e/index.html", "/a/b"] {
        let (_, edge) = fleet.edges().next().unwrap();
        let status = fleet.ask(edge, &host, target).status;
        assert!(matches!(status, 400 | 404), "{target}: {status}");
    }
    // Spelled in another way than it should be: answered under one name only.
    let (_, edge) = fleet.edges().next().unwrap();
    let moved = fleet.ask(edge, &host, "/a%2fb/c/d/e.txt");
    assert_eq!(
        (moved.status, moved.header("location")),
        (307, Some("/a/b/c/d/e.txt"))
    );
}

#[test]
fn a_file_of_300_megabytes_arrives_whole() {
    let fleet = Fleet::shared();
    let big = noise(3, 300_000_000);
    let folder = Folder::page("big").with("big.bin", &big);
    let _ = fleet.deploy("f-big", &folder);
    let (_, edge) = fleet.edges().next().unwrap();
    let response = fleet.ask(edge, &fleet.host("f-big"), "/big.bin");
    assert_eq!(response.status, 200);
    assert!(
        response.body == big,
        "{} bytes of {} arrived",
        response.body.len(),
        big.len()
    );
}

#[test]
fn twenty_thousand_files_are_one_release_and_one_change_is_one_upload() {
    let fleet = Fleet::shared();
    let folder = Folder::page("many");
    for index in 0..20_000 {
        folder.write(
            &format!("d{}/f{index}.txt", index % 200),
            format!("file {index}\n").as_bytes(),
        );
    }
    let _ = fleet.deploy("f-many", &folder);
    let host = fleet.host("f-many");
    for index in [0, 1, 9_999, 19_999] {
        let body = format!("file {index}\n");
        fleet.all_answer(
            &host,
            &format!("/d{}/f{index}.txt", index % 200),
            200,
            Some(body.as_bytes()),
        );
    }
    folder.write("d0/f0.txt", b"changed\n");
    let _ = fleet.deploy("f-many", &folder);
    fleet.all_answer(&host, "/d0/f0.txt", 200, Some(b"changed\n"));
    fleet.all_answer(&host, "/d1/f1.txt", 200, Some(b"file 1\n"));
}
