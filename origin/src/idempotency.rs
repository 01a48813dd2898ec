//! Idempotency keys: a request that is sent again gets the answer it got, and changes nothing.
//!
//! Invariant: the answer is noted in the transaction that makes the change, so there is no moment
//! at which a repeated request could change something twice. Keys are per token.

use std::time::Duration;

use helix_service::clock;
use helix_service::digest::sha256;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::auth::Caller;
use crate::store::{Connection, Store, StoreError, Tx, millis};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest key, in bytes.
const MAX_KEY: usize = 255;

/// A request that can be repeated.
#[derive(Clone, Debug)]
pub struct Repeatable {
    caller: String,
    key: String,
    request: String,
}

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is empty, too long, or not printable.
    #[error("an idempotency key is 1 to {MAX_KEY} printable ASCII characters")]
    Illegal,
    /// It stands for something else.
    #[error("the idempotency key was used for another request")]
    Reused,
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Repeatable {
    /// A request by `caller` under `key`; `what` and `body` are all that decides what it does.
    ///
    /// # Errors
    /// When the key is not legal.
    pub fn new(
        caller: &Caller,
        key: &str,
        what: &str,
        body: &impl Serialize,
    ) -> Result<Self, KeyError> {
        let legal = (1..=MAX_KEY).contains(&key.len())
            && key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !legal {
            return Err(KeyError::Illegal);
        }
        let body = serde_json::to_vec(body).expect("API shapes always encode");
        let request = sha256(&[what.as_bytes(), b"\n", &body].concat()).to_string();
        Ok(Self {
            caller: caller.id.clone(),
            key: key.to_owned(),
            request,
        })
    }

    /// The answer this request got before.
    ///
    /// # Errors
    /// When the key was used for another request, or the database fails.
    pub async fn answer<T: DeserializeOwned>(&self, store: &Store) -> Result<Option<T>, KeyError> {
        let mut connection = store.read().await?;
        self.read(&mut connection).await
    }

    /// The same within a change: the request may have been answered while this one waited for its turn.
    ///
    /// # Errors
    /// When the key was used for another request, or the database fails.
    pub async fn answer_now<T: DeserializeOwned>(
        &self,
        tx: &mut Tx,
    ) -> Result<Option<T>, KeyError> {
        self.read(tx).await
    }

    /// Notes the answer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note(&self, tx: &mut Tx, answer: &impl Serialize) -> Result<(), StoreError> {
        let now = clock::now();
        sqlx::query("DELETE FROM idempotency WHERE created < $1")
            .bind(millis(now - KEPT))
            .execute(&mut **tx)
            .await?;
        sqlx::query("INSERT INTO idempotency (caller, request_key, request, answer, created) VALUES ($1, $2, $3, $4, $5)")
            .bind(&self.caller)
            .bind(&self.key)
            .bind(&self.request)
            .bind(serde_json::to_string(answer).expect("API shapes always encode"))
            .bind(millis(now))
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    async fn read<T: DeserializeOwned>(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<T>, KeyError> {
        let row: Option<(String, String)> =
            sqlx::query_as("SELECT request, answer FROM idempotency WHERE caller = $1 AND request_key = $2 AND created >= $3")
                .bind(&self.caller)
                .bind(&self.key)
                .bind(millis(clock::now() - KEPT))
                .fetch_optional(connection)
                .await
                .map_err(StoreError::from)?;
        match row {
            None => Ok(None),
            Some((request, _)) if request != self.request => Err(KeyError::Reused),
            Some((_, answer)) => match serde_json::from_str(&answer) {
                Ok(answer) => Ok(Some(answer)),
                Err(_) => Err(StoreError::Corrupt {
                    what: "idempotency.answer",
                }
                .into()),
            },
        }
    }
}
