//! Where releases come from, over a real fleet: edges of every region check what origin signs, anybody can check it after, and an edge
//! that trusts another key lets nothing go live.

use helix_routing::id::{KeyId, ReleaseId};
use helix_routing::provenance::bundle::Bundle;
use helix_routing::provenance::policy::judge;
use helix_routing::provenance::statement::Statement;
use helix_routing::provenance::{Provenance, Source};
use helix_routing::seal::KeyRole;
use helix_service::dsse;
use helix_service::keys::{KeyRing, PublicKey, SigningKey};
use helix_tests::client::{Client, Request};
use helix_tests::fleet::{EdgeInfo, Fleet, Options, REVIVE_LIMIT};
use helix_tests::folder::{self, Folder};
use helix_tests::wait;

use crate::own_fleet;

/// How often an edge came to `outcome` when it asked where a release comes from.
fn counted(edge: &EdgeInfo, outcome: &str) -> u64 {
    let mut client = Client::of(&edge.admin);
    let shown = client.send(Request::get("admin", "/metrics")).unwrap();
    let label = format!("outcome=\"{outcome}\"");
    let text = shown.text();
    let mut lines = text.lines();
    let line =
        lines.find(|line| line.starts_with("helix_edge_provenance_total") && line.contains(&label));
    let number = line.and_then(|line| line.rsplit(' ').next());
    number.map_or(0, |number| number.parse().unwrap())
}

#[test]
fn what_is_deployed_was_vouched_for_on_every_edge_and_can_be_checked_by_anybody() {
    let fleet = Fleet::shared();
    let release = fleet.deploy("vouched", &Folder::page("vouched"));
    for (_, edge) in fleet.edges() {
        assert!(counted(edge, "verified") > 0, "{} has not asked", edge.edge);
    }
    let shown = fleet
        .helix()
        .run(["release", "provenance", release.as_str()])
        .with(0);
    let key = SigningKey::load(
        KeyRole::Provenance,
        &fleet.folder().join("keys/provenance.pem"),
    );
    let ring = KeyRing::new([key.unwrap().public()]);
    let bundle = shown.stdout.trim().as_bytes();
    let statement: Statement = dsse::open(&ring, KeyRole::Provenance, bundle).unwrap();
    let provenance: Provenance = statement.read().unwrap();
    let releases = fleet.api().releases("vouched");
    let view = releases
        .iter()
        .find(|view| view.release == release)
        .unwrap();
    let site = "vouched/production".parse().unwrap();
    judge(&provenance, &view.artifact, &site, None).unwrap();
    assert!(matches!(provenance.source, Source::Upload { .. }));
    assert_eq!(view.source, Some(provenance.source.to_string()));
    let table = fleet.helix().run(["releases", "--project", "vouched"]);
    table.with(0).says(&["SOURCE", "upload by"]);
}

/// Starts edges anew with these keys of role `provenance` pinned, and no others.
fn pin(fleet: &Fleet, edges: &[String], pinned: &[&PublicKey]) {
    for edge in edges {
        let mut config = fleet.config(edge);
        let keys = config["keys"].as_array_mut().unwrap();
        keys.retain(|key| key["role"].as_str() != Some("provenance"));
        keys.extend(pinned.iter().map(|key| toml::Value::try_from(key).unwrap()));
        let path = fleet.config_file(edge);
        std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
        let before = fleet.kill(edge);
        fleet.wait_for_successor(edge, before);
        let (_, edge) = fleet
            .edges()
            .find(|(_, one)| one.edge.as_str() == edge)
            .unwrap();
        wait::until_true("the edge serves again", REVIVE_LIMIT, || {
            let asked = Request::get("nobody.example", "/");
            Client::of(&edge.http).send(asked).is_ok()
        });
    }
    fleet.wait_until_whole();
}

/// Puts `key` in the place of the one that origin signs with.
fn replace(fleet: &Fleet, key: &SigningKey) {
    let path = fleet.folder().join("keys/provenance.pem");
    std::fs::remove_file(&path).unwrap();
    key.save(&path).unwrap();
    let before = fleet.kill("origin");
    fleet.wait_for_successor("origin", before);
    fleet.wait_until_whole();
}

/// The key that signed the newest bundle of a release.
fn signed_by(fleet: &Fleet, release: &ReleaseId) -> KeyId {
    let shown = fleet.helix();
    let shown = shown.run(["release", "provenance", release.as_str()]);
    let bundle: Bundle = serde_json::from_str(&shown.with(0).stdout).unwrap();
    bundle.signed_by().unwrap().0
}

#[test]
fn the_key_is_replaced_while_releases_go_out_and_back() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let (host, page) = (fleet.host("rotated"), |text| {
        folder::page(text).into_bytes()
    });
    let all: Vec<String> = fleet
        .edges()
        .map(|(_, edge)| edge.edge.to_string())
        .collect();
    let path = fleet.folder().join("keys/provenance.pem");
    let old = SigningKey::load(KeyRole::Provenance, &path)
        .unwrap()
        .public();
    let key = SigningKey::generate(KeyRole::Provenance);
    let new = key.public();

    // Both are pinned before the new one signs: what the old one signs goes live as ever.
    pin(&fleet, &all, &[&old, &new]);
    let first = fleet.deploy("rotated", &Folder::page("first"));
    assert_eq!(signed_by(&fleet, &first), old.id);
    replace(&fleet, &key);
    let second = fleet.deploy("rotated", &Folder::page("second"));
    assert_eq!(signed_by(&fleet, &second), new.id);
    wait::until_true(
        "what is from before is attested again",
        REVIVE_LIMIT,
        || signed_by(&fleet, &first) == new.id,
    );

    // The old one is taken off: what it signed is vouched for by the new one, and can be gone back to.
    pin(&fleet, &all, &[&new]);
    fleet.all_answer(&host, "/", 200, Some(&page("second")));
    let back = ["rollback", first.as_str(), "--project", "rotated"];
    let _ = fleet.helix().run(back).with(0);
    fleet.all_answer(&host, "/", 200, Some(&page("first")));

    // An edge that was forgotten: it says what to do, nothing goes live anywhere, and what is live stays.
    let forgotten = &all[..1];
    pin(&fleet, forgotten, &[&old]);
    let third = Folder::page("third");
    let refused = fleet.deploy_to("rotated", "production", third.path());
    let says = [
        new.id.as_str(),
        "unknown key",
        "pin it in `[[keys]]`",
        &forgotten[0],
    ];
    refused.with(3).says(&says);
    fleet.all_answer(&host, "/", 200, Some(&page("first")));
    pin(&fleet, forgotten, &[&new]);
    let _ = fleet.deploy("rotated", &third);
}

#[test]
fn an_edge_that_trusts_another_key_lets_nothing_go_live() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let foreign = SigningKey::generate(KeyRole::Provenance).public();
    pin(&fleet, &["fra-1".to_owned()], &[&foreign]);
    let folder = Folder::page("foreign");
    let ended = fleet.deploy_to("foreign", "production", folder.path());
    ended
        .with(3)
        .says(&["provenance does not count", "unknown key"]);
    fleet.all_answer(&fleet.host("foreign"), "/", 404, None);
}
