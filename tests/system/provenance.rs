//! Where releases come from, over a real fleet: edges of every region check what origin signs, anybody can check it after, and an edge
//! that trusts another key lets nothing go live.

use helix_routing::provenance::policy::judge;
use helix_routing::provenance::statement::Statement;
use helix_routing::provenance::{Provenance, Source};
use helix_routing::seal::KeyRole;
use helix_service::dsse;
use helix_service::keys::{KeyRing, SigningKey};
use helix_tests::client::{Client, Request};
use helix_tests::fleet::{EdgeInfo, Fleet, Options};
use helix_tests::folder::Folder;

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

#[test]
fn an_edge_that_trusts_another_key_lets_nothing_go_live() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let path = fleet.config_file("fra-1");
    let mut config = fleet.config("fra-1");
    let foreign = SigningKey::generate(KeyRole::Provenance).public();
    let keys = config["keys"].as_array_mut().unwrap();
    keys.retain(|key| key["role"].as_str() != Some("provenance"));
    keys.push(toml::Value::try_from(foreign).unwrap());
    std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
    let before = fleet.kill("fra-1");
    fleet.wait_for_successor("fra-1", before);
    fleet.wait_until_whole();
    let folder = Folder::page("foreign");
    let ended = fleet.deploy_to("foreign", "production", folder.path());
    ended
        .with(3)
        .says(&["provenance does not count", "unknown key"]);
    fleet.all_answer(&fleet.host("foreign"), "/", 404, None);
}
