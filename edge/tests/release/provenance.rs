//! Where artifacts come from: an edge that pins a key of role `provenance` prepares nothing that is not vouched for.

use std::collections::BTreeMap;

use helix_routing::api::Trust;
use helix_routing::artifact::{Descriptor, EMPTY_CONFIG, EMPTY_TYPE, MANIFEST_TYPE, Manifest};
use helix_routing::provenance::bundle::BUNDLE_TYPE;
use helix_routing::provenance::policy::Requires;
use helix_routing::provenance::statement::Statement;
use helix_routing::provenance::{Built, Checkout, Provenance, Source};
use helix_routing::record::{ReleaseRef, SiteRecord};
use helix_routing::report::CandidateState;
use helix_routing::seal::KeyRole;
use helix_service::dsse;
use helix_service::keys::SigningKey;

use crate::world::*;

const REPOSITORY: &str = "https://github.com/acme/shop";

fn upload() -> Source {
    Source::Upload {
        by: "laptop".to_owned(),
    }
}

fn build(branch: &str, trust: Trust) -> Source {
    Source::Build(Built {
        of: Checkout {
            repository: REPOSITORY.to_owned(),
            reference: format!("refs/heads/{branch}"),
            commit: "c".repeat(40).parse().unwrap(),
        },
        trust,
        root: None,
        command: None,
        build: "0123456789abcdef".parse().unwrap(),
        log: None,
    })
}

fn provenance(site: &str, release: &ReleaseRef, source: Source) -> Provenance {
    Provenance {
        site: site.parse().unwrap(),
        artifact: release.artifact.clone(),
        source,
    }
}

/// A key that edges started from now on pin.
fn pinned(world: &mut World) -> SigningKey {
    let key = SigningKey::generate(KeyRole::Provenance);
    world.vouching.push(key.public());
    key
}

impl World {
    /// Has origin say that `release` comes from there, as the newest of what it says.
    fn attest(&self, key: &SigningKey, release: &ReleaseRef, provenance: &Provenance) {
        self.refer(release, dsse::sign(key, &Statement::of(provenance)));
    }

    fn refer(&self, release: &ReleaseRef, bundle: Vec<u8>) {
        let mut blobs = self.blobs.lock().unwrap();
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            artifact_type: Some(BUNDLE_TYPE.to_owned()),
            config: blobs.put(EMPTY_TYPE, EMPTY_CONFIG.to_vec()),
            layers: vec![blobs.put(BUNDLE_TYPE, bundle)],
            subject: Some(Descriptor {
                media_type: MANIFEST_TYPE.to_owned(),
                digest: release.artifact.clone(),
                size: 1,
                annotations: BTreeMap::new(),
            }),
            annotations: BTreeMap::new(),
        };
        let manifest = blobs.put(MANIFEST_TYPE, serde_json::to_vec(&manifest).unwrap());
        let of = blobs.bundles.entry(release.artifact.to_string());
        of.or_default().insert(0, manifest);
    }

    fn refused(&self) -> Option<String> {
        match self.candidate_state() {
            Some(CandidateState::Failed(reason)) => Some(reason),
            Some(CandidateState::Preparing | CandidateState::Prepared) | None => None,
        }
    }

    /// Waits until the candidate is refused, and says why.
    async fn refusal(&self, of: &SiteRecord) -> String {
        self.until(|| {
            self.last_report()
                .is_some_and(|report| report.generation == of.generation)
                && self.refused().is_some()
        })
        .await;
        self.refused().unwrap()
    }

    /// How often origin was asked for something whose path begins so.
    fn asked(&self, start: &str) -> usize {
        let blobs = self.blobs.lock().unwrap();
        let asked = blobs.asked.iter();
        asked.filter(|asked| asked.starts_with(start)).count()
    }
}

#[tokio::test]
async fn a_release_that_is_vouched_for_is_prepared_and_goes_on_without_origin() {
    in_world!(world, {
        let key = pinned(&mut world);
        let edge = world.edge().await;
        let release = world.release(SITE, &[("index.html", b"one")]);
        world.attest(&key, &release, &provenance(SITE, &release, upload()));
        world.host(HOST, 1, Some(SITE)).await;
        world.site(&record(1, None, Some(&release), &[])).await;
        world
            .until(|| world.candidate_state() == Some(CandidateState::Prepared))
            .await;
        world.site(&record(2, Some(&release), None, &[])).await;
        world.until(|| world.serves(2)).await;
        assert_eq!(
            world.asked("referrers/"),
            1,
            "what was verified is asked for once"
        );
        edge.stop().await;
        world.stop_origin().await;
        world.reports.lock().unwrap().clear();
        let edge = world.edge().await;
        world.until(|| world.serves(2)).await;
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"one");
        edge.stop().await;
    });
}

#[tokio::test]
async fn what_nobody_vouches_for_is_refused_before_its_files_are_fetched() {
    in_world!(world, {
        let key = pinned(&mut world);
        let edge = world.edge().await;
        let stranger = SigningKey::generate(KeyRole::Provenance);
        let other = world.release("shop/preview/7", &[("index.html", b"other")]);
        type Say = fn(&World, &SigningKey, &SigningKey, &ReleaseRef, &ReleaseRef);
        let cases: [(&str, Say); 7] = [
            ("attested nothing", |_, _, _, _, _| {}),
            (
                "of shoe/production, not of shop/production",
                |world, key, _, release, _| {
                    world.attest(
                        key,
                        release,
                        &provenance("shoe/production", release, upload()),
                    );
                },
            ),
            (
                "of shop/preview/7, not of shop/production",
                |world, key, _, release, _| {
                    world.attest(
                        key,
                        release,
                        &provenance("shop/preview/7", release, upload()),
                    );
                },
            ),
            ("is of artifact", |world, key, _, release, other| {
                world.attest(key, release, &provenance(SITE, other, upload()));
            }),
            ("unknown key", |world, _, stranger, release, _| {
                world.attest(stranger, release, &provenance(SITE, release, upload()));
            }),
            ("bundle is not what", |world, _, _, release, _| {
                world.refer(release, b"[]".to_vec());
            }),
            ("does not verify", |world, key, _, release, _| {
                let good = dsse::sign(key, &Statement::of(&provenance(SITE, release, upload())));
                let mut bundle: serde_json::Value = serde_json::from_slice(&good).unwrap();
                bundle["dsseEnvelope"]["payload"] = serde_json::json!("e30=");
                world.refer(release, serde_json::to_vec(&bundle).unwrap());
            }),
        ];
        for (generation, (needle, say)) in (1..).zip(cases) {
            let text = format!("release {generation}");
            let release = world.release(SITE, &[("index.html", text.as_bytes())]);
            say(&world, &key, &stranger, &release, &other);
            let record = record(generation, None, Some(&release), &[]);
            world.site(&record).await;
            let reason = world.refusal(&record).await;
            assert!(reason.contains(needle), "{needle}: {reason}");
        }
        let packs = world.edge_config().data_dir.join("store/packs");
        let fetched = std::fs::read_dir(packs).unwrap().count();
        assert_eq!(fetched, 0, "files of what was refused were fetched");
        edge.stop().await;
    });
}

#[tokio::test]
async fn production_of_a_linked_project_takes_only_what_its_record_requires() {
    in_world!(world, {
        let key = pinned(&mut world);
        let edge = world.edge().await;
        let required = |generation, release: &ReleaseRef, uploads| SiteRecord {
            requires: Some(Box::new(Requires {
                repository: REPOSITORY.to_owned(),
                branch: "main".to_owned(),
                uploads,
            })),
            ..record(generation, None, Some(release), &[])
        };
        let release = world.release(SITE, &[("index.html", b"one")]);
        world.attest(&key, &release, &provenance(SITE, &release, upload()));
        let record = required(1, &release, false);
        world.site(&record).await;
        let reason = world.refusal(&record).await;
        assert!(reason.contains("uploaded by laptop"), "{reason}");
        let by_branch = provenance(SITE, &release, build("feature", Trust::Branch));
        world.attest(&key, &release, &by_branch);
        let record = required(2, &release, false);
        world.site(&record).await;
        let reason = world.refusal(&record).await;
        assert!(reason.contains("takes what is built of main"), "{reason}");
        // The settings allow it.
        world.site(&required(3, &release, true)).await;
        world
            .until(|| world.candidate_state() == Some(CandidateState::Prepared))
            .await;
        // One bundle of several is enough, and not the newest has to be it.
        let merged = world.release(SITE, &[("index.html", b"merged")]);
        let by_default = provenance(SITE, &merged, build("main", Trust::Default));
        world.attest(&key, &merged, &by_default);
        world.attest(&key, &merged, &provenance(SITE, &merged, upload()));
        world.site(&required(4, &merged, false)).await;
        world
            .until(|| {
                world
                    .last_report()
                    .is_some_and(|report| report.generation.0 == 4)
                    && world.candidate_state() == Some(CandidateState::Prepared)
            })
            .await;
        edge.stop().await;
    });
}

#[tokio::test]
async fn an_edge_that_pins_no_such_key_asks_nobody() {
    in_world!(world, {
        let edge = world.edge().await;
        let release = world.release(SITE, &[("index.html", b"one")]);
        world.site(&record(1, None, Some(&release), &[])).await;
        world
            .until(|| world.candidate_state() == Some(CandidateState::Prepared))
            .await;
        assert_eq!(world.asked("referrers/"), 0);
        edge.stop().await;
    });
}

#[tokio::test]
async fn a_key_is_pinned_later_and_what_is_served_already_stays_while_origin_is_away() {
    in_world!(world, {
        let edge = world.edge().await;
        let release = crate::settle(&mut world, "from before").await;
        edge.stop().await;
        let key = pinned(&mut world);
        world.stop_origin().await;
        world.reports.lock().unwrap().clear();
        let edge = world.edge().await;
        world.until(|| world.serves(2)).await;
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"from before");
        edge.stop().await;
        world.start_origin().await;
        world.attest(&key, &release, &provenance(SITE, &release, upload()));
        world.reports.lock().unwrap().clear();
        let edge = world.edge().await;
        world.until(|| world.serves(2)).await;
        assert!(
            world.asked("referrers/") > 0,
            "it was not asked who vouches for it"
        );
        edge.stop().await;
    });
}
