//! Files of the releases before answer for a day after each one's own cutover, whether or not the edge was started
//! anew meanwhile.

use std::path::Path;
use std::time::Duration;

use helix_edge::agent::retired::Retired;
use helix_routing::record::ReleaseRef;
use helix_service::clock;

use crate::world::*;

const HOUR: Duration = Duration::from_secs(3600);

async fn until_answered(edge: &Edge, path: &str, status: u16) {
    let until = tokio::time::Instant::now() + DEADLINE;
    while fetch(edge, HOST, path).await.0 != status {
        assert!(
            tokio::time::Instant::now() < until,
            "{path} is not {status}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Three releases go live one after the other; each has a page and a file of its own.
async fn cut_over(world: &mut World) -> [ReleaseRef; 3] {
    let releases = ["one", "two", "three"].map(|name| {
        let (page, file) = (format!("{name}.html"), format!("{name}.js"));
        let files = [("index.html", name), (&page, name), (&file, name)];
        world.release(SITE, &files.map(|(path, text)| (path, text.as_bytes())))
    });
    let [one, two, three] = &releases;
    world.host(HOST, 1, Some(SITE)).await;
    for (generation, live, previous) in
        [(1, one, &[][..]), (2, two, &[one]), (3, three, &[two, one])]
    {
        let record = record(generation, Some(live), None, previous);
        world.site(&record).await;
        world.until(|| world.serves(generation)).await;
    }
    releases
}

/// Waits until it is written down that all of `releases` were live.
async fn until_noted(folder: &Path, releases: &[&ReleaseRef]) -> Retired {
    let until = tokio::time::Instant::now() + DEADLINE;
    loop {
        let retired = Retired::load(folder, &SITE.parse().unwrap());
        let now = clock::now();
        if releases
            .iter()
            .all(|release| retired.was_live_lately(release, now))
        {
            return retired;
        }
        assert!(tokio::time::Instant::now() < until, "nothing is noted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn every_release_of_the_last_day_answers_and_a_restart_does_not_start_the_day_anew() {
    let Some(server) = nats_server() else { return };
    let mut world = Box::pin(World::new(server)).await;
    let edge = world.edge().await;
    let [one, two, three] = cut_over(&mut world).await;
    for (path, status) in [
        ("/one.js", 200),
        ("/two.js", 200),
        ("/three.js", 200),
        ("/four.js", 404),
        ("/one", 404),
        ("/one.html", 404),
    ] {
        until_answered(&edge, path, status).await;
    }
    let (_, headers, body) = fetch(&edge, HOST, "/one.js").await;
    assert_eq!(body, b"one");
    assert_eq!(headers["x-helix-release"], one.release.as_str());
    let folder = world.edge_config().data_dir.join("retired");
    let noted = until_noted(&folder, &[&one, &two]).await;
    edge.stop().await;

    // As if the cutovers had been a day and an hour ago, and two hours ago.
    let mut retired = Retired::default();
    let now = clock::now();
    retired.follow(&record(2, Some(&two), None, &[&one]), now - HOUR * 25);
    retired.follow(
        &record(3, Some(&three), None, &[&two, &one]),
        now - HOUR * 2,
    );
    assert_ne!(retired, noted);
    retired.save(&folder, &SITE.parse().unwrap()).unwrap();
    let edge = world.edge().await;
    until_answered(&edge, "/two.js", 200).await;
    until_answered(&edge, "/one.js", 404).await;
    // It did not forget what it read.
    assert_eq!(until_noted(&folder, &[&two]).await, retired);
    edge.stop().await;
}
