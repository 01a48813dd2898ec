//! What a rollout comes to: superseded, aborted, taken back, shown as the preview alias.

use helix_origin::feed::records;
use helix_routing::host::HostPattern;
use helix_routing::id::{Environment, SiteId};
use helix_routing::record::ReleaseRef;
use helix_routing::rollout::Outcome;

use crate::edge::Mood;
use crate::{Origin, release, site, start, wanted};

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_deployment_supersedes_the_one_that_runs() {
    let Some((_folder, _nats, fleet, origin)) = start().await else {
        return;
    };
    fleet.set(Mood::Silent);
    let first = origin.deploy(&site(), &release(1)).await;
    let second = origin.deploy(&site(), &release(2)).await;
    assert_eq!(origin.outcome(&first).await, Some(Outcome::Superseded));
    assert_eq!(origin.conductor.running(&site()), Some(second.clone()));
    fleet.set(Mood::Good);
    assert_eq!(origin.outcome(&second).await, Some(Outcome::Settled));
    assert!(fleet.all_serve(&site(), &release(2).release));
    crate::schema::events_fit(&origin.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_one_edge_cannot_prepare_goes_nowhere() {
    let Some((_folder, _nats, fleet, origin)) = start().await else {
        return;
    };
    assert_eq!(
        origin
            .outcome(&origin.deploy(&site(), &release(1)).await)
            .await,
        Some(Outcome::Settled)
    );
    fleet.edges[2].set(Mood::Failing);
    let rollout = origin.deploy(&site(), &release(2)).await;
    assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Aborted));
    assert!(fleet.all_serve(&site(), &release(1).release));
    let note: String = sqlx::query_scalar("SELECT note FROM region_sites WHERE region = 'iad'")
        .fetch_one(origin.store.reader())
        .await
        .expect("a note");
    assert!(
        note.contains("iad-1") && note.contains("no space left"),
        "{note}"
    );
    crate::schema::events_fit(&origin.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rollbacks_go_further_back_and_hold_the_regions() {
    let Some((_folder, _nats, fleet, origin)) = start().await else {
        return;
    };
    assert_eq!(
        origin.rollback(None).await.unwrap_err().kind(),
        "never-live"
    );
    for number in 1..=3 {
        assert_eq!(
            origin
                .outcome(&origin.deploy(&site(), &release(number)).await)
                .await,
            Some(Outcome::Settled)
        );
    }
    for number in [2, 1] {
        let rollout = origin.rollback(None).await.expect("it starts");
        assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
        assert!(fleet.all_serve(&site(), &release(number).release));
    }
    assert_eq!(
        origin.rollback(None).await.unwrap_err().kind(),
        "nothing-older"
    );
    assert_eq!(
        origin.rollback(Some(&release(9))).await.unwrap_err().kind(),
        "unknown-release"
    );
    assert_eq!(
        origin.rollback(Some(&release(1))).await.unwrap_err().kind(),
        "already-live"
    );
    assert_eq!(
        origin.rollback(Some(&release(3))).await.unwrap_err().kind(),
        "quarantined"
    );
    origin.made(&site(), &release(4)).await;
    assert_eq!(
        origin.rollback(Some(&release(4))).await.unwrap_err().kind(),
        "never-live"
    );
    let mut new = wanted(&site(), &release(3));
    assert_eq!(
        origin
            .conductor
            .deploy(new.clone())
            .await
            .unwrap_err()
            .kind(),
        "quarantined"
    );
    new.lift_quarantine = true;
    let begun = origin.conductor.deploy(new).await.expect("it starts");
    assert_eq!(begun.held.len(), 2, "both regions were held");
    let rollout = begun.commit().await.expect("it commits");
    assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
    let rollout = origin.rollback(None).await.expect("it starts");
    assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
    assert!(
        fleet.all_serve(&site(), &release(1).release),
        "past the release that is quarantined"
    );
    crate::schema::events_fit(&origin.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preview_alias_follows_the_newest_settled_preview() {
    let Some((_folder, _nats, _fleet, origin)) = start().await else {
        return;
    };
    let preview = |number| SiteId {
        project: site().project,
        environment: Environment::Preview(number),
    };
    let pattern: HostPattern = "preview.shop.helix.localhost".parse().expect("a host");
    for (number, expected) in [(7, 7), (5, 5), (7, 7)] {
        let rollout = origin
            .deploy(&preview(number), &release(number as u8))
            .await;
        assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
        let mut connection = origin.store.reader().acquire().await.expect("a connection");
        let held = records::host(&mut connection, &pattern)
            .await
            .expect("it is read")
            .expect("it is there");
        assert_eq!(held.site, Some(preview(expected)));
    }
}

impl Origin {
    /// As an upload would leave it.
    pub(crate) async fn made(&self, site: &SiteId, release: &ReleaseRef) {
        let mut tx = self.store.write().await.expect("a transaction");
        let (project, named) = (site.project.as_str(), site.to_string());
        let (id, artifact) = (release.release.as_str(), release.artifact.as_str());
        let rows: [(&'static str, &[&str]); 3] = [
            (
                "INSERT INTO projects (project, created) VALUES ($1, 1) ON CONFLICT DO NOTHING",
                &[project],
            ),
            (
                "INSERT INTO sites (project, site, created) VALUES ($1, $2, 1) ON CONFLICT DO NOTHING",
                &[project, &named],
            ),
            (
                "INSERT INTO releases (site, release_id, artifact, content, created, files, bytes) VALUES ($1, $2, $3, $3, 1, 1, 1) ON CONFLICT DO NOTHING",
                &[&named, id, artifact],
            ),
        ];
        for (statement, values) in rows {
            values
                .iter()
                .fold(sqlx::query(statement), |query, value| query.bind(*value))
                .execute(&mut *tx)
                .await
                .expect("a row");
        }
        tx.commit().await.expect("a commit");
    }
}
