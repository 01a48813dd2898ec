//! Who is not let in, and what it is told.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use helix_tests::wait;

use super::world::World;
use crate::own_fleet;

/// A fleet, and the folder of an edge that is not in it.
struct Outside {
    world: World,
}

impl Outside {
    fn new() -> Self {
        Self {
            world: World::start(1, None),
        }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.world.folder.path().join("edges").join(name)
    }

    /// `fra-7` asks, and is told so.
    #[track_caller]
    fn refused(&self, token: &str, more: &[&str], words: &[&str]) {
        let folder = self.folder("refused");
        let (ended, ..) = self.world.try_join("fra-7", &folder, token, more);
        ended.with(1).says(words);
    }
}

#[test]
fn whoever_has_no_good_token_stays_out_and_is_told_why() {
    let _turn = own_fleet();
    let outside = Outside::new();
    let (world, refused) = (
        &outside.world,
        |token: &str, more: &[&str], words: &[&str]| {
            outside.refused(token, more, words);
        },
    );
    let named = world.token(&["--region", "fra", "--name", "fra-9"]);
    refused(&named, &[], &["for edge fra-9 alone, not for fra-7"]);
    let fra = world.token(&["--region", "fra"]);
    refused(
        &fra,
        &["--region", "iad"],
        &["for region fra, the edge says that it is in iad"],
    );
    refused(&fra, &["--url", "ftp://10.0.0.1"], &["is no http URL"]);
    let brief = world.token(&["--region", "fra", "--ttl", "1s"]);
    wait::pause(Duration::from_millis(1100));
    refused(
        &brief,
        &[],
        &["the join token expired", "helix edge token create"],
    );
    let listed = world.helix.run(["edge", "token", "list", "--json"]).with(0);
    let listed = listed.json();
    let tokens = listed.as_array().unwrap();
    let id = &tokens
        .iter()
        .find(|token| token["edge"] == "fra-9")
        .unwrap()["id"];
    let _ = world
        .helix
        .run(["edge", "token", "revoke", id.as_str().unwrap()])
        .with(0);
    refused(&named, &[], &["was revoked"]);
    refused("", &[], &["no join token of this fleet"]);
    refused(
        "helix_join_\u{fc}\n",
        &[],
        &["no join token of this fleet", "helix edge token create"],
    );
    let long = "helix_join_".repeat(1000);
    refused(&long, &[], &["no join token of this fleet"]);
    for arguments in [
        ["--region", "syd"].as_slice(),
        &["--region", "fra", "--ttl", "8d"],
        &["--region", "fra", "--uses", "0"],
        &["--region", "fra", "--uses", "2", "--name", "fra-9"],
    ] {
        let _ = world
            .helix
            .run(["edge", "token", "create"].iter().chain(arguments))
            .with(1);
    }
}

#[test]
fn only_the_edge_that_a_token_let_in_may_ask_again() {
    let _turn = own_fleet();
    let outside = Outside::new();
    let world = &outside.world;
    let (fra, iad) = (
        world.token(&["--region", "fra"]),
        world.token(&["--region", "iad"]),
    );
    let first = outside.folder("fra-7");
    for token in [&fra, &fra] {
        let (ended, ..) = world.try_join("fra-7", &first, token, &[]);
        let _ = ended.with(0);
        // As if the answer had been lost.
        fs::remove_file(first.join("edge.toml")).unwrap();
    }
    let listed = world.helix.run(["token", "list"]).with(0);
    assert_eq!(listed.stdout.matches("edge fra-7").count(), 1, "{listed:?}");
    let (ended, ..) = world.try_join("fra-8", &outside.folder("fra-8"), &fra, &[]);
    ended.with(1).says(&["used up"]);
    // Nor does it move to another region by another token, used up or not.
    let (ended, ..) = world.try_join("fra-7", &first, &iad, &[]);
    ended.with(1).says(&["there is an edge fra-7 already"]);
    let (ended, ..) = world.try_join("iad-1", &outside.folder("iad-1"), &iad, &[]);
    let _ = ended.with(0);
    let (ended, ..) = world.try_join("fra-7", &first, &iad, &[]);
    ended.with(1).says(&["used up"]);
}

#[test]
fn an_edge_that_finds_no_origin_says_so_and_one_that_guesses_has_to_wait() {
    let _turn = own_fleet();
    let outside = Outside::new();
    let world = &outside.world;
    let (fra, far) = (world.token(&["--region", "fra"]), outside.folder("far"));
    let (ended, ..) = World::try_join_at("http://127.0.0.1:9", "fra-8", &far, &fra, &[]);
    ended.with(1).says(&[
        "ask http://127.0.0.1:9 to let this edge in",
        "Connection refused",
    ]);
    let nats = format!("http://127.0.0.1:{}", world.servers[0].monitor);
    let (ended, ..) = World::try_join_at(&nats, "fra-8", &far, &fra, &[]);
    ended
        .with(1)
        .says(&["answered 404 with nothing that lets an edge in"]);
    let (ended, ..) = world.try_join("Fra 8", &far, &fra, &[]);
    ended.with(2).says(&["Fra 8"]);
    let said: Vec<String> = (0..12)
        .map(|guess| {
            let token = format!("helix_join_{guess}");
            let (ended, ..) = world.try_join("fra-8", &far, &token, &[]);
            ended.with(1).stderr
        })
        .collect();
    for (at, words) in [
        (0, "no join token of this fleet"),
        (11, "too many join tokens that were none"),
    ] {
        assert!(said[at].contains(words), "{}", said[at]);
    }
}
