//! Backups of whole databases of both kinds, onto new ones of both kinds; and everything that has to be refused.

use std::collections::BTreeSet;
use std::fs;

use helix_routing::key::{self, Scope};
use tempfile::TempDir;

use super::*;
use crate::admission::AdmissionConfig;
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::store::dump::{Dump, Load};
use crate::store::{Store, testing};

const WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// An origin's folder, and the config that names it.
struct Machine {
    folder: TempDir,
    config: Config,
}

impl Machine {
    fn new(place: Option<Place>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"
            listen = "127.0.0.1:0"
            admin = "127.0.0.1:0"
            data_dir = "FOLDER/data"
            base_domain = "helix.localhost"
            public_url = "http://127.0.0.1:7700"
            site_port = 8081
            record_key = "FOLDER/keys/record.pem"
            bootstrap_token_file = "FOLDER/keys/token"
            edge_token_file = "FOLDER/keys/edge-token"
            [nats]
            url = "nats://127.0.0.1:4222"
            seed_file = "FOLDER/keys/origin.nk"
            [[regions]]
            region = "fra"
            [[regions.edges]]
            edge = "fra-1"
            url = "http://127.0.0.1:8081"
        "#;
        let text = text.replace("FOLDER", folder.path().to_str().unwrap());
        let path = folder.path().join("origin.toml");
        fs::write(&path, text).unwrap();
        let mut config: Config =
            helix_service::config::load(&path, "HELIX_NO_SUCH_PREFIX").unwrap();
        config.database = place;
        Self { folder, config }
    }

    /// With something in it.
    async fn that_has_led(place: Option<Place>) -> Self {
        let machine = Self::new(place);
        fs::create_dir_all(&machine.config.data_dir).unwrap();
        fs::create_dir_all(machine.folder.path().join("keys")).unwrap();
        for secret in SECRETS
            .into_iter()
            .chain([Secret::SealKey, Secret::ProvenanceKey])
        {
            fs::write(secret.path(&machine.config).unwrap(), format!("{secret:?}")).unwrap();
        }
        let store = Store::lead(machine.config.place()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        for statement in [
            "INSERT INTO projects (project, created) VALUES ('shop', 1)",
            "INSERT INTO sites (site, project, created) VALUES ('shop/production', 'shop', 9223372036854775807)",
            "INSERT INTO events (event, number, at, kind, body) VALUES ('e', 1, 2, 'hold.set', '{\"ä\":1}')",
            "INSERT INTO webhooks (webhook, url, events, mark, by_whom, created) VALUES ('w', 'http://x', '', '', 'ada', 1)",
            "INSERT INTO deliveries (delivery, webhook, event, number, state, created) VALUES ('d', 'w', 'e', 1, 'pending', 1)",
            "INSERT INTO outbox (stream, record_key) VALUES ('KV_g', 'h.00.www=example=com')",
            "INSERT INTO visitor_keys (id, secret, created) VALUES ('1', 's', 1)",
            "INSERT INTO packs (project, digest, media_type, size, created) VALUES \
             ('shop', 'sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'x', 1, 1)",
        ] {
            sqlx::query(statement).execute(&mut *tx).await.unwrap();
        }
        sqlx::query("INSERT INTO records (stream, record_key, generation, epoch, body, removed) VALUES ($1, $2, 7, 1, $3, NULL)")
            .bind(Scope::Global.stream())
            .bind(key::TERM)
            .bind((0..=255).collect::<Vec<u8>>())
            .execute(&mut *tx)
            .await
            .unwrap();
        for number in 0..3 {
            let act = Act::new("hold.set", format!("shop/production fra {number}"));
            audit::record(&mut tx, &Caller::origin(), act)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        store.close().await;
        machine
    }

    async fn rows(&self) -> Vec<(Table, Vec<Vec<Value>>)> {
        let mut dump = Dump::open(&self.config.place()).await.unwrap();
        let mut tables = Vec::new();
        for table in dump.tables().await.unwrap() {
            let mut rows = Vec::new();
            let read = dump.rows::<StoreError>(&table, |row| {
                rows.push(row);
                Ok(())
            });
            read.await.unwrap();
            rows.sort_by_key(|row| format!("{row:?}"));
            tables.push((table, rows));
        }
        tables.sort_by(|one, other| one.0.name.cmp(&other.0.name));
        tables
    }

    async fn restore(&self, file: &Path, key: &Identity) -> Result<Summary, BackupError> {
        restore(&self.config, file, key, WAIT).await
    }
}

async fn backed_up(machine: &Machine, to: &Path) -> Identity {
    let key = Identity::generate().unwrap();
    let recipient = key.recipient().unwrap();
    make(&machine.config, to, &recipient).await.unwrap();
    key
}

/// A new place of each kind that this machine has.
fn places() -> Vec<Option<Place>> {
    let server = testing::server().map(|server| Some(server.database().parse().unwrap()));
    std::iter::once(None).chain(server).collect()
}

/// What a migration writes: the tables that have to be in every backup.
fn made_by_migrations() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut names = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let made = text
            .lines()
            .filter_map(|line| line.strip_prefix("CREATE TABLE "));
        names.extend(made.filter_map(|rest| Some(rest.split_whitespace().next()?.to_owned())));
    }
    names
}

#[tokio::test]
async fn every_row_of_every_table_and_every_key_comes_back_on_either_kind_of_database() {
    for from in places() {
        let old = Machine::that_has_led(from).await;
        let file = old.folder.path().join("origin.helix");
        let key = backed_up(&old, &file).await;
        let before = old.rows().await;
        let tables: BTreeSet<String> = before.iter().map(|(table, _)| table.name.clone()).collect();
        assert_eq!(tables, made_by_migrations());
        for to in places() {
            let new = Machine::new(to);
            let summary = new.restore(&file, &key).await.unwrap();
            assert_eq!(summary.packs, (0, 1), "artifacts are not in it");
            for (old_table, new_table) in before.iter().zip(new.rows().await) {
                let name = &new_table.0.name;
                match name.as_str() {
                    "recoveries" => assert_eq!(new_table.1.len(), 1),
                    // What is not on disk is not asked for.
                    "packs" => assert_eq!(new_table.1.len(), 0),
                    _ => assert_eq!(*old_table, new_table),
                }
            }
            for secret in SECRETS
                .into_iter()
                .chain([Secret::SealKey, Secret::ProvenanceKey])
            {
                let path = secret.path(&new.config).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), format!("{secret:?}"));
                let mode = std::os::unix::fs::PermissionsExt::mode(
                    &fs::metadata(&path).unwrap().permissions(),
                );
                assert_eq!(mode & 0o777, 0o600, "{}", path.display());
            }
            let store = Store::lead(new.config.place()).await.unwrap();
            let due = crate::recovery::due(&store).await.unwrap();
            assert!(due.is_some(), "the edges are asked first");
            let mut tx = store.write().await.unwrap();
            let check = audit::verify(&mut tx, None).await.unwrap();
            assert_eq!((check.entries, check.broken.is_none()), (3, true));
            // What counts by itself goes on behind what was there.
            sqlx::query("INSERT INTO outbox (stream, record_key) VALUES ('KV_g', 'x')")
                .execute(&mut *tx)
                .await
                .unwrap();
            tx.commit().await.unwrap();
            let again = new.restore(&file, &key).await;
            assert!(matches!(again, Err(BackupError::Occupied(_))), "{again:?}");
        }
    }
}

#[tokio::test]
async fn a_restore_overwrites_no_key_and_leaves_nothing_when_it_is_refused() {
    let old = Machine::that_has_led(None).await;
    let file = old.folder.path().join("origin.helix");
    let key = backed_up(&old, &file).await;
    for to in places() {
        let new = Machine::new(to);
        let path = Secret::NatsSeed.path(&new.config).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "another").unwrap();
        let refused = new.restore(&file, &key).await;
        assert!(
            matches!(&refused, Err(BackupError::OtherKey(other)) if *other == path),
            "{refused:?}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
        assert!(!Secret::RecordKey.path(&new.config).unwrap().exists());
        let other = Identity::generate().unwrap();
        let wrong = new.restore(&file, &other).await;
        assert!(
            matches!(
                wrong,
                Err(BackupError::Envelope {
                    source: EnvelopeError::Recipient(_),
                    ..
                })
            ),
            "{wrong:?}"
        );
        let cut = new.folder.path().join("cut");
        let whole = fs::read(&file).unwrap();
        fs::write(&cut, &whole[..whole.len() - 20]).unwrap();
        assert!(new.restore(&cut, &key).await.is_err());
        let left = fs::read_dir(&new.config.data_dir).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
        // With the same key there, and where a broken off restore left something, it goes well.
        fs::write(&path, format!("{:?}", Secret::NatsSeed)).unwrap();
        fs::write(new.config.data_dir.join("origin.db.restoring"), "half").unwrap();
        new.restore(&file, &key).await.unwrap();
    }
}

#[tokio::test]
async fn the_keys_that_let_edges_in_are_restored_where_the_config_has_a_place_for_them() {
    let admission = |machine: &mut Machine| {
        let keys = machine.folder.path().join("nats");
        machine.config.admission = Some(AdmissionConfig {
            keys: keys.clone(),
            nats_urls: Vec::new(),
            leafs: Vec::new(),
            nats_ca: None,
            origins: Vec::new(),
        });
        keys
    };
    let mut old = Machine::that_has_led(None).await;
    let keys = admission(&mut old);
    fs::create_dir_all(&keys).unwrap();
    let secrets = [
        "operator.nk",
        "leaf-fra.nk",
        "authority.pem",
        "authority.key",
    ];
    for name in secrets.into_iter().chain(["accounts.conf", "origin.creds"]) {
        fs::write(keys.join(name), name).unwrap();
    }
    let file = old.folder.path().join("origin.helix");
    let key = backed_up(&old, &file).await;

    let nowhere = Machine::new(None).restore(&file, &key).await;
    assert!(
        matches!(nowhere, Err(BackupError::NoAdmission)),
        "{nowhere:?}"
    );
    let mut new = Machine::new(None);
    let keys = admission(&mut new);
    new.restore(&file, &key).await.unwrap();
    for name in secrets {
        assert_eq!(fs::read_to_string(keys.join(name)).unwrap(), name);
    }
    assert!(
        !keys.join("accounts.conf").exists(),
        "it is made of the keys"
    );
    for name in ["../x.nk", "/x.nk", "x", ".nk", "x.toml", "X.nk"] {
        assert_eq!(Secret::of_admission(name), None, "{name}");
        let named = Secret::Admission(name.to_owned()).path(&new.config);
        assert!(matches!(named, Err(BackupError::Content(_))), "{name}");
    }
}

#[tokio::test]
async fn an_origin_that_lacks_a_key_or_is_of_an_earlier_build_is_not_backed_up() {
    let old = Machine::that_has_led(None).await;
    let file = old.folder.path().join("origin.helix");
    let recipient = Identity::generate().unwrap().recipient().unwrap();
    fs::remove_file(Secret::WebhookKey.path(&old.config).unwrap()).unwrap();
    let refused = make(&old.config, &file, &recipient).await;
    assert!(matches!(refused, Err(BackupError::File { .. })));
    assert!(!file.exists() && !old.folder.path().join("origin.helix.part").exists());

    let early = Machine::new(None);
    fs::create_dir_all(&early.config.data_dir).unwrap();
    let load = Load::create(&early.config.place(), OLDEST_SCHEMA - 1)
        .await
        .unwrap();
    drop(load);
    let refused = make(&early.config, &file, &recipient).await;
    assert!(
        matches!(refused, Err(BackupError::Older { .. })),
        "{refused:?}"
    );
    let nothing = Machine::new(None);
    let refused = make(&nothing.config, &file, &recipient).await;
    assert!(matches!(refused, Err(BackupError::Store(_))), "{refused:?}");
}

#[test]
fn a_backup_is_written_as_it_always_was() {
    let table = Table {
        name: "records".to_owned(),
        columns: vec!["stream".to_owned(), "body".to_owned()],
    };
    let head = Head {
        made: Timestamp::from_millis(1_700_000_000_000),
        build: "0.1.0".to_owned(),
        schema: 20,
        base_domain: "helix.example".to_owned(),
    };
    let row = vec![
        Value::Null,
        Value::Int(-7),
        Value::Real(0.5),
        Value::Text("ä".to_owned()),
        Value::Bytes(vec![0, 255]),
    ];
    let secret = |what| Frame::Secret {
        what,
        bytes: vec![1],
    };
    let frames = [Frame::Head(head), Frame::Table(table), Frame::Row(row)]
        .into_iter()
        .chain(SECRETS.map(secret))
        .chain([Frame::End { rows: 300 }]);
    let mut written = String::new();
    for frame in frames {
        let bytes = frame.encode();
        assert_eq!(Frame::decode(&bytes).unwrap(), frame);
        written.push_str(&hex::encode(bytes));
        written.push('\n');
    }
    assert_eq!(
        written,
        include_str!("fixtures/frames-1.hex"),
        "that needs a new version"
    );
}
