//! Edges that joined by a token, as SQL holds them, and the accounts of those that are no more.
//!
//! Invariant: an account is in `ended_accounts` from the transaction on that removes its edge, and stays there.

use helix_routing::edge::join::JoinRequest;
use helix_routing::id::{EdgeId, RegionId};
use helix_routing::time::Timestamp;

use super::authority::Issued;
use crate::store::{Store, StoreError, Tx, id, millis};

/// An edge as it is let in.
pub(super) struct Admittance {
    pub(super) edge: EdgeId,
    pub(super) region: RegionId,
    /// Public nkey of its account.
    pub(super) account: String,
    pub(super) issued: Issued,
    /// Id of the token that it reads artifacts with.
    pub(super) read_token: String,
}

/// Who has a name.
pub(super) struct Held {
    pub(super) account: Option<String>,
    pub(super) read_token: Option<String>,
    nats_user: Option<String>,
    join_token: Option<String>,
}

impl Held {
    /// Whether that is who asks, with the token that it was admitted by.
    pub(super) fn is_by(&self, request: &JoinRequest, token: &str) -> bool {
        self.nats_user.as_ref() == Some(&request.nats_user)
            && self.join_token.as_deref() == Some(token)
    }
}

type HeldRow = (
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

/// Who has the name; none where nobody had it, or its edge was removed.
pub(super) async fn holder(tx: &mut Tx, edge: &EdgeId) -> Result<Option<Held>, StoreError> {
    let row: Option<HeldRow> = sqlx::query_as(
        "SELECT account, read_token, nats_user, join_token FROM edges WHERE edge = $1 AND removed IS NULL",
    )
    .bind(edge.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    Ok(
        row.map(|(account, read_token, nats_user, join_token)| Held {
            account,
            read_token,
            nats_user,
            join_token,
        }),
    )
}

/// Writes an edge down.
pub(super) async fn save(
    tx: &mut Tx,
    request: &JoinRequest,
    admittance: &Admittance,
    now: Timestamp,
    token: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO edges \
         (edge, region, url, admitted, joined, account, nats_user, certificate, certificate_until, join_token, read_token) \
         VALUES ($1, $2, $3, 'token', $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (edge) DO UPDATE SET region = excluded.region, url = excluded.url, admitted = 'token', \
         joined = excluded.joined, account = excluded.account, nats_user = excluded.nats_user, \
         certificate = excluded.certificate, certificate_until = excluded.certificate_until, \
         join_token = excluded.join_token, read_token = excluded.read_token, removed = NULL",
    )
    .bind(request.edge.as_str())
    .bind(admittance.region.as_str())
    .bind(&request.url)
    .bind(millis(now))
    .bind(&admittance.account)
    .bind(&request.nats_user)
    .bind(&admittance.issued.serial)
    .bind(millis(admittance.issued.until))
    .bind(token)
    .bind(&admittance.read_token)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The NATS user and the region of an edge that joined by a token.
pub(super) async fn user(
    store: &Store,
    edge: &EdgeId,
) -> Result<Option<(String, RegionId)>, StoreError> {
    let row: Option<(String, String)> = sqlx::query_as(
        "SELECT nats_user, region FROM edges WHERE edge = $1 AND nats_user IS NOT NULL AND removed IS NULL",
    )
    .bind(edge.as_str())
    .fetch_optional(store.reader())
    .await?;
    row.map(|(user, region)| Ok((user, id(&region)?)))
        .transpose()
}

/// Writes its next certificate down; false where it is no edge, or another one, by now.
pub(super) async fn certify(
    tx: &mut Tx,
    edge: &EdgeId,
    user: &str,
    issued: &Issued,
) -> Result<bool, StoreError> {
    let written = sqlx::query(
        "UPDATE edges SET certificate = $3, certificate_until = $4 \
         WHERE edge = $1 AND nats_user = $2 AND removed IS NULL",
    )
    .bind(edge.as_str())
    .bind(user)
    .bind(&issued.serial)
    .bind(millis(issued.until))
    .execute(&mut **tx)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// Ends what an edge could show: its account, and the token that it reads artifacts with.
pub(crate) async fn end(tx: &mut Tx, edge: &EdgeId, now: Timestamp) -> Result<(), StoreError> {
    for statement in [
        "INSERT INTO ended_accounts (account, edge, ended) \
         SELECT account, edge, $2 FROM edges WHERE edge = $1 AND account IS NOT NULL ON CONFLICT DO NOTHING",
        "UPDATE tokens SET revoked = $2 WHERE revoked IS NULL AND id = (SELECT read_token FROM edges WHERE edge = $1)",
    ] {
        sqlx::query(statement)
            .bind(edge.as_str())
            .bind(millis(now))
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// The accounts of every edge that joined by a token.
pub(super) async fn accounts(store: &Store) -> Result<Vec<(String, EdgeId, RegionId)>, StoreError> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT account, edge, region FROM edges WHERE account IS NOT NULL AND removed IS NULL ORDER BY edge",
    )
    .fetch_all(store.reader())
    .await?;
    rows.into_iter()
        .map(|(account, edge, region)| Ok((account, id(&edge)?, id(&region)?)))
        .collect()
}

/// Whether an account is no more.
pub(super) async fn is_ended(store: &Store, account: &str) -> Result<bool, StoreError> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT account FROM ended_accounts WHERE account = $1")
            .bind(account)
            .fetch_optional(store.reader())
            .await?;
    Ok(found.is_some())
}

/// Every account that is no more, and whose it was.
pub(super) async fn ended(store: &Store) -> Result<Vec<(String, String)>, StoreError> {
    let rows = sqlx::query_as("SELECT account, edge FROM ended_accounts ORDER BY ended, account")
        .fetch_all(store.reader())
        .await?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use helix_routing::edge::join::NewJoinToken;
    use helix_service::clock;

    use super::*;
    use crate::admission::{AdmissionError, account, read_token, tokens};
    use crate::auth::{self, Caller};
    use crate::store::{Place, testing};

    fn places(folder: &tempfile::TempDir) -> Vec<Place> {
        let file = Place::from(&folder.path().join("origin.db"));
        let server = testing::server().map(|server| server.database().parse().unwrap());
        std::iter::once(file).chain(server).collect()
    }

    fn request(edge: &str, user: &str, token: &str) -> JoinRequest {
        JoinRequest {
            token: token.to_owned(),
            edge: edge.parse().unwrap(),
            region: None,
            url: "http://10.0.0.1".to_owned(),
            nats_user: user.to_owned(),
            nats_proof: String::new(),
            certificate_key: String::new(),
            certificate_proof: String::new(),
        }
    }

    async fn admit(
        store: &Store,
        request: &JoinRequest,
    ) -> Result<(String, String), AdmissionError> {
        let mut tx = store.write().await?;
        let token = tokens::find(&mut tx, &request.token, clock::now()).await?;
        let account = account(&mut tx, request, &token).await?;
        let (read_token, secret) = read_token(&mut tx, &request.edge).await?;
        let admittance = Admittance {
            edge: request.edge.clone(),
            region: token.region,
            account: account.clone(),
            issued: issued("01"),
            read_token,
        };
        save(&mut tx, request, &admittance, clock::now(), &token.id).await?;
        tx.commit().await?;
        Ok((account, secret))
    }

    fn issued(serial: &str) -> Issued {
        Issued {
            pem: String::new(),
            serial: serial.to_owned(),
            until: clock::now(),
        }
    }

    async fn token(store: &Store, uses: u32) -> String {
        let new = NewJoinToken {
            region: "fra".parse().unwrap(),
            edge: None,
            ttl_seconds: None,
            uses: Some(uses),
        };
        let mut tx = store.write().await.unwrap();
        let regions = ["fra".parse().unwrap()];
        let created = tokens::create(&mut tx, new, &regions, &Caller::origin()).await;
        tx.commit().await.unwrap();
        created.unwrap().token
    }

    #[tokio::test]
    async fn a_token_admits_as_many_as_it_may_and_a_removed_edge_has_nothing_left() {
        let folder = tempfile::tempdir().unwrap();
        for place in places(&folder) {
            let store = Store::lead(&place).await.unwrap();
            let secret = token(&store, 2).await;
            let first = request("fra-1", "U1", &secret);
            let (account, before) = admit(&store, &first).await.unwrap();
            let (again, after) = admit(&store, &first).await.unwrap();
            assert_eq!(account, again, "{place}: who asks again has one account");
            assert!(auth::authenticate(&store, &before).await.is_err());
            auth::authenticate(&store, &after).await.unwrap();
            let other = request("fra-1", "U2", &secret);
            let exists = admit(&store, &other).await.unwrap_err();
            assert!(matches!(exists, AdmissionError::Exists(_)), "{exists}");
            admit(&store, &request("fra-2", "U3", &secret))
                .await
                .unwrap();
            let used = admit(&store, &request("fra-3", "U4", &secret))
                .await
                .unwrap_err();
            assert!(matches!(used, AdmissionError::UsedToken(2)), "{used}");
            assert!(tokens::list(&store).await.unwrap().is_empty());

            let mut tx = store.write().await.unwrap();
            assert!(
                certify(&mut tx, &first.edge, "U1", &issued("02"))
                    .await
                    .unwrap()
            );
            assert!(
                !certify(&mut tx, &first.edge, "U2", &issued("03"))
                    .await
                    .unwrap()
            );
            crate::fleet::registry::remove(&mut tx, &first.edge)
                .await
                .unwrap();
            tx.commit().await.unwrap();
            assert!(auth::authenticate(&store, &after).await.is_err());
            assert!(is_ended(&store, &account).await.unwrap());
            assert_eq!(
                ended(&store).await.unwrap(),
                [(account.clone(), "fra-1".to_owned())]
            );
            assert_eq!(accounts(&store).await.unwrap().len(), 1);
            assert!(user(&store, &first.edge).await.unwrap().is_none());
            let back = admit(&store, &first).await.unwrap_err();
            assert!(
                matches!(back, AdmissionError::UsedToken(_)),
                "{place}: {back}"
            );

            let (successor, _) = admit(&store, &request("fra-1", "U5", &token(&store, 1).await))
                .await
                .unwrap();
            assert_ne!(successor, account);
            assert!(is_ended(&store, &account).await.unwrap());
        }
    }
}
