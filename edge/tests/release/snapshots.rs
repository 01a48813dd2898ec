//! A snapshot in parts: over the wire, on disk, edited there, and fetched again.

use std::path::PathBuf;

use async_nats::jetstream;
use helix_routing::host::HostPattern;
use helix_routing::id::{Epoch, Generation};
use helix_routing::key::{self, Scope};
use helix_routing::record::HostRecord;
use helix_routing::snapshot::{Part, PartContent, SnapshotIndex, head};
use helix_routing::wire::Wire;
use helix_service::clock;

use crate::settle_files;
use crate::world::*;

/// Several parts of them, and several chunks of the object.
const HOSTS: u64 = 20_000;
/// Records of a part here.
const PART: usize = 3000;
/// Files of the release that is live.
const FILES: usize = 30_000;

impl World {
    /// Stores a snapshot of these hosts, which is older than anything in the stream.
    async fn snapshot_of_hosts(&self, count: u64) {
        let mut records: Vec<(String, Vec<u8>)> = (0..count)
            .map(|n| {
                let host: HostPattern = format!("h{n}.example.com").parse().unwrap();
                let record = HostRecord {
                    epoch: Epoch(1),
                    generation: Generation(1),
                    site: Some(SITE.parse().unwrap()),
                    host,
                };
                (key::host(&record.host), record.encode())
            })
            .collect();
        records.sort();
        let mut index = SnapshotIndex {
            at_sequence: 0,
            at: clock::now(),
            records: count,
            may_drop: false,
            parts: Vec::new(),
        };
        let mut parts = Vec::new();
        for records in records.chunks(PART) {
            let mut content = PartContent::default();
            for (key, body) in records {
                content.push(key, body);
            }
            let part = zstd::encode_all(&content.into_bytes()[..], 1).unwrap();
            index.parts.push(Part {
                digest: helix_service::digest::sha256(&part),
                bytes: part.len() as u64,
            });
            parts.extend(part);
        }
        let sealed = self.seal(
            &Scope::Global,
            key::SNAPSHOT_NAME,
            Generation(0),
            index.encode(),
        );
        let object = [&head(sealed.len())[..], &sealed, &parts].concat();
        let bucket = jetstream::new(self.client.clone())
            .get_object_store(Scope::Global.snapshot_bucket())
            .await
            .unwrap();
        bucket
            .put(key::SNAPSHOT_NAME, &mut &object[..])
            .await
            .unwrap();
    }

    fn base(&self) -> PathBuf {
        let state = self.folder.path().join("edge/state/KV_g");
        let files = std::fs::read_dir(state).unwrap();
        let is_base = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("base."))
        };
        files
            .map(|file| file.unwrap().path())
            .filter(is_base)
            .max()
            .unwrap()
    }
}

async fn answers(edge: &Edge, number: u64) -> bool {
    let host = format!("h{number}.example.com");
    fetch(edge, &host, "/").await.2 == b"one"
}

/// Hosts from all over.
async fn all_answer(edge: &Edge) -> bool {
    for number in (0..HOSTS).step_by(997) {
        if !answers(edge, number).await {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn a_snapshot_in_parts_is_taken_over_kept_and_fetched_again_when_the_disk_was_edited() {
    in_world!(world, {
        world.snapshot_of_hosts(HOSTS).await;
        let edge = world.edge().await;
        // Opening it takes a while, in which a listener that does not wait for it has nothing.
        let names: Vec<String> = (0..FILES).map(|n| format!("{n}.txt")).collect();
        let mut files: Vec<(&str, &[u8])> = names
            .iter()
            .map(|name| (&name[..], name.as_bytes()))
            .collect();
        files.push(("index.html", b"one"));
        settle_files(&mut world, &files).await;
        while !all_answer(&edge).await {
            world.beacon().await;
        }
        // What came after the snapshot, and replaces a record of it.
        world.host("h997.example.com", 2, None).await;
        while answers(&edge, 997).await {
            world.beacon().await;
        }
        edge.stop().await;

        world.stop_nats();
        let edge = world.edge().await;
        assert!(answers(&edge, 0).await && answers(&edge, HOSTS - 1).await);
        assert!(!answers(&edge, 997).await, "the log replaces the snapshot");
        edge.stop().await;

        let base = world.base();
        let mut bytes = std::fs::read(&base).unwrap();
        let half = bytes.len() / 2;
        bytes[half] ^= 1;
        std::fs::write(&base, bytes).unwrap();
        let edge = world.edge().await;
        assert!(
            !answers(&edge, 0).await,
            "nothing of an edited base is served"
        );
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"one", "the log still is");
        world.start_nats();
        while !answers(&edge, 0).await || !answers(&edge, HOSTS - 1).await {
            world.beacon().await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(!answers(&edge, 997).await);
        edge.stop().await;
    });
}
