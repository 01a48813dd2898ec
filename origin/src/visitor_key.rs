//! What edges sign visitors' cookies with: the same for every edge, made with the first question, and another one when an operator says so.
//!
//! ```text
//!  rotated ──ANNOUNCED──▶ signed with ──rotated, ANNOUNCED──▶ accepted ──ACCEPTED──▶ gone
//! ```
//!
//! It is no part of a record: those are kept in more places than a secret should be. Who knows it can choose which of two
//! releases they are shown. Passes of protected sites are signed with it and with what their records hold, so that neither alone
//! lets anybody in. Invariant: no edge signs with a key before every edge that asks has had the time to accept it.

use std::time::Duration;

use helix_routing::time::Timestamp;
use helix_routing::visitor::{VisitorKey, VisitorKeyRotation};
use helix_service::{clock, random};

use crate::store::{self, Connection, Store, StoreError, Tx};

/// For how long edges only accept a new key: they ask every hour, and may be away for another.
const ANNOUNCED: Duration = Duration::from_secs(3 * 60 * 60);
/// For how long a key is accepted once another one signs: as long as the longest link of a protected site, and a day.
const ACCEPTED: Duration = Duration::from_secs(91 * 24 * 60 * 60);
/// Keys there are at most: one that signs, one that is announced, and two that were. Edges try them one after the other.
const MAX_KEYS: usize = 4;

/// A key cannot be rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Edges are being told of another one.
    #[error(
        "edges are told of a new key already, and sign with it from {until}: rotate again after that"
    )]
    UnderWay {
        /// Until then.
        until: Timestamp,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One key, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    secret: String,
    created: Timestamp,
}

/// The keys that count now; one is made, if there is none.
///
/// # Errors
/// When the database fails.
pub async fn current(store: &Store) -> Result<VisitorKey, StoreError> {
    let mut reader = store.read().await?;
    let mut keys = held(&mut reader).await?;
    drop(reader);
    if keys.is_empty() {
        let mut tx = store.write().await?;
        keys = first(&mut tx).await?;
        tx.commit().await?;
    }
    counting(&keys, clock::now()).ok_or(StoreError::Corrupt {
        what: "visitor_keys",
    })
}

/// Makes another key, which edges sign with once all of them have had the time to hear of it.
///
/// # Errors
/// When they are being told of one already, or the database fails.
pub async fn rotate(tx: &mut Tx) -> Result<VisitorKeyRotation, RotationError> {
    let keys = first(tx).await?;
    let now = clock::now();
    if let [newest, _, ..] = &keys[..]
        && now < newest.created + ANNOUNCED
    {
        let until = newest.created + ANNOUNCED;
        return Err(RotationError::UnderWay { until });
    }
    insert(tx, &random::hex16(), now).await?;
    for key in keys.iter().skip(MAX_KEYS - 1) {
        sqlx::query("DELETE FROM visitor_keys WHERE secret = $1")
            .bind(&key.secret)
            .execute(&mut **tx)
            .await
            .map_err(StoreError::from)?;
    }
    Ok(VisitorKeyRotation {
        signs_from: now + ANNOUNCED,
        accepted_until: now + ANNOUNCED + ACCEPTED,
    })
}

/// Pure. Of all keys, newest first: which signs, and which are accepted besides.
fn counting(keys: &[Made], now: Timestamp) -> Option<VisitorKey> {
    let signs = keys
        .iter()
        .position(|key| key.created + ANNOUNCED <= now)
        .or_else(|| keys.len().checked_sub(1))?;
    let is_accepted = |at: usize| {
        // Until the one after it has signed for long enough.
        at < signs || at > signs && now < keys[at - 1].created + ANNOUNCED + ACCEPTED
    };
    let also = (0..keys.len()).filter(|at| is_accepted(*at));
    Some(VisitorKey {
        secret: keys[signs].secret.clone(),
        also: also.map(|at| keys[at].secret.clone()).collect(),
    })
}

/// All keys, newest first, with a first one.
async fn first(tx: &mut Tx) -> Result<Vec<Made>, StoreError> {
    let keys = held(tx).await?;
    if !keys.is_empty() {
        return Ok(keys);
    }
    insert(tx, "1", clock::now()).await?;
    held(tx).await
}

async fn insert(tx: &mut Tx, id: &str, now: Timestamp) -> Result<(), StoreError> {
    // Whoever came first has made it.
    sqlx::query(
        "INSERT INTO visitor_keys (id, secret, created) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING",
    )
    .bind(id)
    .bind(random::secret())
    .bind(store::millis(now))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn held(connection: &mut Connection) -> Result<Vec<Made>, StoreError> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT secret, created FROM visitor_keys ORDER BY created DESC, id DESC")
            .fetch_all(connection)
            .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|(secret, created)| Made {
            secret,
            created: store::time(created),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_key_is_announced_signs_and_is_accepted_for_as_long_as_anything_lasts() {
        let start = Timestamp::from_millis(1_000_000_000);
        let made = |secret: &str, after: Duration| Made {
            secret: secret.to_owned(),
            created: start + after,
        };
        let one = [made("a", Duration::ZERO)];
        let two = [made("b", 10 * DAY), made("a", Duration::ZERO)];
        let three = [made("c", 20 * DAY), two[0].clone(), two[1].clone()];
        for (keys, after, signs, also) in [
            (&one[..], Duration::ZERO, "a", &[][..]),
            (&one, 1000 * DAY, "a", &[]),
            (&two, 10 * DAY, "a", &["b"]),
            (&two, 10 * DAY + 3 * HOUR, "b", &["a"]),
            (&two, 101 * DAY + 2 * HOUR, "b", &["a"]),
            (&two, 101 * DAY + 3 * HOUR, "b", &[]),
            (&three, 20 * DAY + HOUR, "b", &["c", "a"]),
            (&three, 21 * DAY, "c", &["b", "a"]),
            (&three, 105 * DAY, "c", &["b"]),
        ] {
            let found = counting(keys, start + after).unwrap();
            assert_eq!(found.secret, signs, "{after:?}");
            assert_eq!(found.also, also, "{after:?}");
        }
        assert!(counting(&[], start).is_none());
    }

    #[tokio::test]
    async fn a_key_is_rotated_once_at_a_time_and_few_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::lead(&folder.path().join("origin.db")).await.unwrap();
        let before = current(&store).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let rotation = rotate(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        assert!(rotation.signs_from < rotation.accepted_until);
        let now = current(&store).await.unwrap();
        assert_eq!((&now.secret, now.also.len()), (&before.secret, 1));
        let mut tx = store.write().await.unwrap();
        let again = rotate(&mut tx).await;
        assert!(
            matches!(again, Err(RotationError::UnderWay { .. })),
            "{again:?}"
        );
        for _ in 0..2 * MAX_KEYS {
            let past = "UPDATE visitor_keys SET created = created - 20000000";
            sqlx::query(past).execute(&mut *tx).await.unwrap();
            rotate(&mut tx).await.unwrap();
        }
        tx.commit().await.unwrap();
        let last = current(&store).await.unwrap();
        assert_eq!(last.also.len(), MAX_KEYS - 1);
        assert!(!last.also.contains(&before.secret) && last.secret != before.secret);
    }
}
