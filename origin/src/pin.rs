//! Pins: visitors who show something get a release of their own.
//!
//! Invariant: SQL holds the pins of a site, and every record of it that is written carries them, whoever writes it. While a
//! rollout owns the records it carries a change along with its next write; when it ends, what is left is written.

use helix_routing::id::{PinLabel, SiteId};
use helix_routing::record::{InvalidPin, MAX_PINS, Pin, PinBy, ReleaseRef};
use helix_routing::visitor::{NewPin, PinView};
use helix_service::clock;

use crate::feed::records::{self, RecordError};
use crate::store::{self, Connection, StoreError, Tx};

/// Longest reason, in characters.
const MAX_REASON: usize = 300;

/// A pin cannot be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It goes by something that it cannot go by.
    #[error(transparent)]
    By(#[from] InvalidPin),
    /// By both at once.
    #[error("a pin goes by a header or by a cookie, not by both: make two pins")]
    Both,
    /// The reason says too much.
    #[error("a reason has at most {MAX_REASON} characters")]
    Reason,
    /// There is no such release here.
    #[error("site {site} has no release {release}; `helix releases` lists those it has")]
    UnknownRelease {
        /// The site.
        site: SiteId,
        /// The release.
        release: String,
    },
    /// Its files are gone.
    #[error("release {0} was collected: deploy its content again to pin it")]
    Collected(String),
    /// There are too many.
    #[error("site {0} has {MAX_PINS} pins already, the most there may be: remove one")]
    TooMany(SiteId),
    /// There is no such pin.
    #[error("site {site} has no pin {label}")]
    Unknown {
        /// The site.
        site: SiteId,
        /// The label.
        label: PinLabel,
    },
    /// A record could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for PinError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// Pins a release, in place of what was pinned under the label.
///
/// # Errors
/// As [`PinError`] says.
pub async fn add(tx: &mut Tx, site: &SiteId, new: NewPin, by: &str) -> Result<(), PinError> {
    let goes_by = goes_by(&new)?;
    let reason = new.reason.as_deref();
    if reason.is_some_and(|reason| reason.chars().count() > MAX_REASON) {
        return Err(PinError::Reason);
    }
    let release = new.release.to_string();
    let found: Option<(String, Option<i64>)> = sqlx::query_as(
        "SELECT artifact, collected FROM releases WHERE site = $1 AND release_id = $2",
    )
    .bind(site.to_string())
    .bind(&release)
    .fetch_optional(&mut **tx)
    .await?;
    let artifact = match found {
        None => {
            let site = site.clone();
            return Err(PinError::UnknownRelease { site, release });
        }
        Some((_, Some(_))) => return Err(PinError::Collected(release)),
        Some((artifact, None)) => artifact,
    };
    let held = of_site(tx, site).await?;
    let others = held.iter().filter(|pin| pin.label != new.label).count();
    if others >= MAX_PINS {
        return Err(PinError::TooMany(site.clone()));
    }
    let (kind, name, value) = written(&goes_by);
    sqlx::query(
        "INSERT INTO pins (site, label, release_id, artifact, kind, name, value, by_whom, reason, since) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (site, label) DO UPDATE SET \
         release_id = excluded.release_id, artifact = excluded.artifact, kind = excluded.kind, name = excluded.name, \
         value = excluded.value, by_whom = excluded.by_whom, reason = excluded.reason, since = excluded.since",
    )
    .bind(site.to_string())
    .bind(new.label.as_str())
    .bind(&release)
    .bind(artifact)
    .bind(kind)
    .bind(name)
    .bind(value)
    .bind(by)
    .bind(reason)
    .bind(store::millis(clock::now()))
    .execute(&mut **tx)
    .await?;
    records::tell(tx, site).await?;
    Ok(())
}

/// Removes a pin.
///
/// # Errors
/// When there is none, or the database fails.
pub async fn remove(tx: &mut Tx, site: &SiteId, label: &PinLabel) -> Result<(), PinError> {
    let removed = sqlx::query("DELETE FROM pins WHERE site = $1 AND label = $2")
        .bind(site.to_string())
        .bind(label.as_str())
        .execute(&mut **tx)
        .await?;
    if removed.rows_affected() == 0 {
        return Err(PinError::Unknown {
            site: site.clone(),
            label: label.clone(),
        });
    }
    records::tell(tx, site).await?;
    Ok(())
}

/// Removes all pins of a site whose records go.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut Tx, site: &SiteId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM pins WHERE site = $1")
        .bind(site.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

type Row = (String, String, String, String, String, String);

/// The pins of a site as its records carry them, in order of their labels.
///
/// # Errors
/// When the database fails, or holds what this build cannot have written.
pub async fn of_site(connection: &mut Connection, site: &SiteId) -> Result<Vec<Pin>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT label, release_id, artifact, kind, name, value FROM pins WHERE site = $1 ORDER BY label",
    )
    .bind(site.to_string())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(pin).collect()
}

/// The pins of a site, for people.
///
/// # Errors
/// When the database fails.
pub async fn list(connection: &mut Connection, site: &SiteId) -> Result<Vec<PinView>, PinError> {
    type Said = (String, Option<String>, i64);
    let pins = of_site(connection, site).await?;
    let said: Vec<Said> =
        sqlx::query_as("SELECT by_whom, reason, since FROM pins WHERE site = $1 ORDER BY label")
            .bind(site.to_string())
            .fetch_all(&mut *connection)
            .await?;
    let mut told = Vec::new();
    for region in records::regions_of(connection, site).await? {
        let record = records::site(connection, &region, site).await?;
        told.extend(
            record
                .filter(|record| !record.removed)
                .map(|record| record.pins),
        );
    }
    let views = pins.into_iter().zip(said);
    let views = views.map(|(pin, (by_whom, reason, since))| PinView {
        told: told.iter().all(|held| held.contains(&pin)),
        by: pin.by.to_string(),
        label: pin.label,
        release: pin.release.release,
        by_whom,
        reason,
        since: store::time(since),
    });
    Ok(views.collect())
}

fn goes_by(new: &NewPin) -> Result<PinBy, PinError> {
    Ok(match (&new.header, &new.cookie) {
        (None, None) => PinBy::Label,
        (Some(header), None) => PinBy::header(&header.name, &header.value)?,
        (None, Some(cookie)) => PinBy::cookie(&cookie.name, &cookie.value)?,
        (Some(_), Some(_)) => return Err(PinError::Both),
    })
}

fn written(by: &PinBy) -> (&'static str, &str, &str) {
    match by {
        PinBy::Label => ("label", "", ""),
        PinBy::Header(shown) => ("header", shown.name(), shown.value()),
        PinBy::Cookie(shown) => ("cookie", shown.name(), shown.value()),
    }
}

fn pin((label, release, artifact, kind, name, value): Row) -> Result<Pin, StoreError> {
    let corrupt = |_| StoreError::Corrupt { what: "a pin" };
    let by = match kind.as_str() {
        "header" => PinBy::header(&name, &value).map_err(corrupt)?,
        "cookie" => PinBy::cookie(&name, &value).map_err(corrupt)?,
        _ => PinBy::Label,
    };
    Ok(Pin {
        label: store::id(&label)?,
        by,
        release: ReleaseRef {
            release: store::id(&release)?,
            artifact: store::id(&artifact)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use helix_routing::id::{Epoch, Generation, RegionId, ReleaseId};
    use helix_routing::record::SiteRecord;
    use helix_routing::visitor::NameAndValue;

    struct World {
        _folder: tempfile::TempDir,
        store: Store,
        site: SiteId,
        region: RegionId,
    }

    fn release(digit: char) -> ReleaseId {
        String::from(digit).repeat(20).parse().unwrap()
    }

    fn new(label: &str, digit: char) -> NewPin {
        NewPin {
            environment: "production".parse().unwrap(),
            label: label.parse().unwrap(),
            release: release(digit),
            header: None,
            cookie: None,
            reason: None,
        }
    }

    impl World {
        /// A site with releases a and b, and c which is collected, and a record.
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::lead(&folder.path().join("origin.db")).await.unwrap();
            let site: SiteId = "shop/production".parse().unwrap();
            let region: RegionId = "fra".parse().unwrap();
            let mut tx = store.write().await.unwrap();
            for (digit, collected) in [('a', None), ('b', None), ('c', Some(1_i64))] {
                let id = release(digit);
                let artifact = format!("sha256:{}", String::from(digit).repeat(64));
                sqlx::query(
                    "INSERT INTO releases (site, release_id, artifact, content, created, files, bytes, collected) \
                     VALUES ($1, $2, $3, $3, 0, 1, 1, $4)",
                )
                .bind(site.to_string())
                .bind(id.as_str())
                .bind(artifact)
                .bind(collected)
                .execute(&mut *tx)
                .await
                .unwrap();
            }
            sqlx::query(
                "INSERT INTO edge_versions (edge, region, site_record) VALUES ('fra-1', 'fra', 2)",
            )
            .execute(&mut *tx)
            .await
            .unwrap();
            let mut record = SiteRecord::blank(site.clone(), region.clone(), Epoch(1));
            record.generation = Generation(1);
            records::put_site(&mut tx, &record).await.unwrap();
            tx.commit().await.unwrap();
            Self {
                _folder: folder,
                store,
                site,
                region,
            }
        }

        /// The labels of the record, and its generation.
        async fn record(&self) -> (Vec<String>, u64) {
            let mut tx = self.store.write().await.unwrap();
            let record = records::site(&mut tx, &self.region, &self.site).await;
            let record = record.unwrap().unwrap();
            let labels = record.pins.iter().map(|pin| {
                let digit = &pin.release.release.as_str()[..1];
                format!("{}={digit}", pin.label)
            });
            (labels.collect(), record.generation.0)
        }

        async fn add(&self, new: NewPin) -> Result<(), PinError> {
            let mut tx = self.store.write().await.unwrap();
            add(&mut tx, &self.site, new, "tester").await?;
            tx.commit().await.unwrap();
            Ok(())
        }

        async fn set_running(&self, running: bool) {
            let mut tx = self.store.write().await.unwrap();
            let statement = if running {
                "INSERT INTO rollouts (rollout, site, kind, by_whom, machine, revision, started, changed) \
                 VALUES ('r', $1, 'deploy', 'x', '{}', 1, 0, 0)"
            } else {
                "UPDATE rollouts SET outcome = 'settled' WHERE site = $1"
            };
            sqlx::query(statement)
                .bind(self.site.to_string())
                .execute(&mut *tx)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_pin_is_in_the_record_until_it_is_removed() {
        let world = World::new().await;
        world.add(new("beta", 'a')).await.unwrap();
        assert_eq!(world.record().await, (vec!["beta=a".to_owned()], 2));
        world.add(new("beta", 'a')).await.unwrap();
        assert_eq!(world.record().await.1, 2, "nothing has changed");
        world.add(new("beta", 'b')).await.unwrap();
        assert_eq!(world.record().await, (vec!["beta=b".to_owned()], 3));
        let mut tx = world.store.write().await.unwrap();
        let label = "beta".parse().unwrap();
        remove(&mut tx, &world.site, &label).await.unwrap();
        let again = remove(&mut tx, &world.site, &label).await;
        assert!(matches!(again, Err(PinError::Unknown { .. })));
        tx.commit().await.unwrap();
        assert_eq!(world.record().await, (Vec::new(), 4));
    }

    #[tokio::test]
    async fn a_rollout_carries_pins_along_and_what_is_left_is_told_when_it_ends() {
        let world = World::new().await;
        world.add(new("first", 'a')).await.unwrap();
        world.set_running(true).await;
        world.add(new("second", 'b')).await.unwrap();
        let (labels, generation) = world.record().await;
        assert_eq!(
            (labels.len(), generation),
            (1, 2),
            "the records are the rollout's"
        );
        let mut tx = world.store.write().await.unwrap();
        let told = |views: Vec<PinView>| views.iter().map(|view| view.told).collect::<Vec<_>>();
        let views = list(&mut tx, &world.site).await.unwrap();
        assert_eq!(told(views), [true, false]);
        // The machine knows of no pins.
        let held = records::site(&mut tx, &world.region, &world.site).await;
        let mut record = held.unwrap().unwrap();
        record.generation = record.generation.next();
        record.pins.clear();
        records::put_site(&mut tx, &record).await.unwrap();
        let views = list(&mut tx, &world.site).await.unwrap();
        assert_eq!(told(views), [true, true]);
        tx.commit().await.unwrap();
        world.add(new("third", 'a')).await.unwrap();
        world.set_running(false).await;
        let mut tx = world.store.write().await.unwrap();
        records::tell(&mut tx, &world.site).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(world.record().await.0.len(), 3);
    }

    #[tokio::test]
    async fn what_cannot_be_pinned_is_refused_by_name() {
        let world = World::new().await;
        let shown = |name: &str| {
            Some(NameAndValue {
                name: name.to_owned(),
                value: "x".to_owned(),
            })
        };
        let refused = async |new: NewPin| world.add(new).await.unwrap_err().to_string();
        assert!(refused(new("x", 'd')).await.contains("has no release dddd"));
        assert!(refused(new("x", 'c')).await.contains("was collected"));
        let host = NewPin {
            header: shown("Host"),
            ..new("x", 'a')
        };
        assert!(refused(host).await.contains("a meaning of its own"));
        let both = NewPin {
            header: shown("a"),
            cookie: shown("b"),
            ..new("x", 'a')
        };
        assert!(refused(both).await.contains("not by both"));
        let talks = NewPin {
            reason: Some("x".repeat(MAX_REASON + 1)),
            ..new("x", 'a')
        };
        assert!(refused(talks).await.contains("at most"));
        for number in 0..MAX_PINS {
            world.add(new(&format!("p{number}"), 'a')).await.unwrap();
        }
        assert!(refused(new("x", 'a')).await.contains("already"));
        world.add(new("p0", 'b')).await.unwrap();
    }
}
