//! Deployments and rollbacks one after another, under a client that never stops asking.

use std::collections::BTreeMap;

use helix_routing::id::{RegionId, ReleaseId};
use helix_tests::checker::{Checker, Tolerance};
use helix_tests::fleet::Fleet;
use helix_tests::folder::{Folder, page, page_digest};

/// Commits of one region, over the whole test.
const CUTOVERS: usize = 100;

#[test]
fn a_deployment_is_served_by_every_edge_of_both_regions() {
    let fleet = Fleet::shared();
    let release = fleet.deploy(
        "hello",
        &Folder::page("hello").with("about/index.html", b"about"),
    );
    let host = fleet.host("hello");
    fleet.all_answer(&host, "/", 200, Some(page("hello").as_bytes()));
    fleet.all_answer(&host, "/about/", 200, Some(b"about"));
    fleet.all_answer(&host, "/nothing", 404, None);
    for (region, edge) in fleet.edges() {
        let response = fleet.ask(edge, &host, "/");
        assert_eq!(response.header("x-helix-release"), Some(release.as_str()));
        assert_eq!(response.header("x-helix-region"), Some(region.as_str()));
        assert_eq!(response.header("x-helix-edge"), Some(edge.edge.as_str()));
    }
}

#[test]
fn deploying_the_same_content_again_is_the_same_release_and_no_cutover() {
    let fleet = Fleet::shared();
    let first = fleet.deploy("again", &Folder::page("same"));
    let generation =
        |fleet: &Fleet| fleet.api().site("again/production").unwrap().regions[0].generation;
    let before = generation(&fleet);
    assert_eq!(fleet.deploy("again", &Folder::page("same")), first);
    assert_eq!(generation(&fleet), before);
}

/// What each region has settled on, oldest first; its last is live.
struct Model {
    regions: BTreeMap<RegionId, Vec<ReleaseId>>,
    cutovers: usize,
}

impl Model {
    fn of(fleet: &Fleet) -> Self {
        Self {
            regions: fleet
                .info
                .regions
                .keys()
                .map(|region| (region.clone(), Vec::new()))
                .collect(),
            cutovers: 0,
        }
    }

    fn deployed(&mut self, release: &ReleaseId) {
        for settled in self.regions.values_mut() {
            settled.push(release.clone());
            self.cutovers += 1;
        }
    }

    fn taken_back(&mut self, region: &RegionId) {
        self.regions.get_mut(region).unwrap().pop();
        self.cutovers += 1;
    }

    fn tell(&self, checker: &Checker) {
        for (region, settled) in &self.regions {
            checker.settled(region, settled.last().unwrap());
        }
    }
}

#[test]
fn a_hundred_cutovers_and_rollbacks_never_show_a_wrong_answer() {
    let fleet = Fleet::shared();
    let host = fleet.host("busy");
    let mut model = Model::of(&fleet);
    let mut known = Vec::new();
    let mut deploy = |model: &mut Model| {
        let text = format!("version {}", known.len());
        let release = fleet.deploy("busy", &Folder::page(&text));
        known.push((release.clone(), page_digest(&text)));
        model.deployed(&release);
    };
    deploy(&mut model);
    let checker = Checker::start(&fleet, &host, Tolerance::Nothing);
    let regions: Vec<RegionId> = fleet.info.regions.keys().cloned().collect();
    for round in 0.. {
        if model.cutovers >= CUTOVERS {
            break;
        }
        checker.changing();
        deploy(&mut model);
        model.tell(&checker);
        // One round in three is taken back in one region, the next in the other, the third everywhere.
        match round % 4 {
            3 => {
                checker.changing();
                let _ = fleet
                    .helix()
                    .run(["rollback", "--project", "busy", "--all"])
                    .with(0);
                regions.iter().for_each(|region| model.taken_back(region));
            }
            turn @ (0 | 1) => {
                let region = &regions[turn % regions.len()];
                checker.changing();
                let _ = fleet
                    .helix()
                    .run(["rollback", "--project", "busy", "--region", region.as_str()])
                    .with(0);
                model.taken_back(region);
            }
            _ => {}
        }
        model.tell(&checker);
    }
    let seen = checker.finish(&known);
    assert!(seen.requests > 1_000, "the checker hardly asked: {seen:?}");
    assert!(
        seen.releases > CUTOVERS / 4,
        "the checker saw few of the releases: {seen:?}"
    );
}
