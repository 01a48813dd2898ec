//! What nothing refers to goes, and nothing else.

use std::time::Duration;

use helix_origin::artifact::Artifacts;
use helix_origin::collect::{self, Keep};
use helix_routing::rollout::Outcome;

use crate::{release, site, start};

#[tokio::test(flavor = "multi_thread")]
async fn collection_removes_what_nothing_references_and_nothing_else() {
    let Some((folder, _nats, fleet, origin)) = start().await else {
        return;
    };
    for number in 1..=2 {
        assert_eq!(
            origin
                .outcome(&origin.deploy(&site(), &release(number)).await)
                .await,
            Some(Outcome::Settled)
        );
    }
    // Made and never deployed, so nothing refers to it.
    origin.made(&site(), &release(9)).await;
    let artifacts =
        Artifacts::open(origin.store.clone(), folder.path(), u64::MAX).expect("a layout");
    let mut tx = origin.store.write().await.expect("a transaction");
    let mut blobs = Vec::new();
    for number in [1, 2, 9] {
        let blob = artifacts.layout().put(&[number]).expect("a blob");
        for statement in [
            "INSERT INTO packs (project, digest, media_type, size, created) VALUES ('shop', $1, $2, 1, 1)",
            "INSERT INTO release_packs (site, digest, release_id) VALUES ('shop/production', $1, $2)",
        ] {
            sqlx::query(statement)
                .bind(blob.as_str())
                .bind(release(number).release.as_str())
                .execute(&mut *tx)
                .await
                .expect("a row");
        }
        blobs.push(blob);
    }
    tx.commit().await.expect("a commit");
    let regions: Vec<_> = fleet.edges.iter().map(|edge| edge.region.clone()).collect();
    let keep = Keep {
        releases: 0,
        age: Duration::ZERO,
        upload_grace: Duration::ZERO,
    };
    let collected = collect::collect(&origin.store, &artifacts, &regions, &keep)
        .await
        .expect("it collects");
    assert_eq!((collected.releases, collected.blobs), (1, 1));
    let kept: Vec<bool> = blobs
        .iter()
        .map(|blob| artifacts.layout().path(blob).exists())
        .collect();
    assert_eq!(kept, [true, true, false], "live and previous stay");
    assert_eq!(
        origin.rollback(Some(&release(9))).await.unwrap_err().kind(),
        "release-collected"
    );
}
