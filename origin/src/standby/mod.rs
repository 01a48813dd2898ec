//! An origin that shares its database with others: it stands by until it leads, and answers all the while.
//!
//! ```text
//!  Away ──database answers──▶ Behind a leader ──lease──▶ Leading
//!    ▲                             │                        │ deposed, or the database is away for a lease
//!    └─────────────────────────────┴────────────────────────┘
//! ```
//!
//! Invariant: one door answers at an address for as long as the process lives. Who stands by passes every request on to
//! the leader, so each address of the fleet's origins is as good as another. What it leads with lives no longer than its term.

mod forward;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use helix_routing::id::Epoch;
use helix_service::error::chain;
use tokio::sync::watch;
use tower_service::Service as _;

use crate::api::problem::{RETRY_AFTER, Rejection};
use crate::store::{Opened, Place, Store, StoreError, lease};
use forward::Forwarder;

/// How often a database that is away is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long an end waits for the database.
const WITHDRAW_LIMIT: Duration = Duration::from_secs(2);

/// This origin cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum StandByError {
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Edges believe one key.
    #[error("stand by {leader}: {} is missing, and edges believe only the key that it signs records with: copy it from there", path.display())]
    NoKey {
        /// Who leads.
        leader: String,
        /// The file.
        path: PathBuf,
    },
}

/// What the door leads to.
#[derive(Clone, Debug)]
enum Standing {
    /// The database has not answered.
    Away {
        /// Why.
        why: String,
    },
    /// Another leads.
    Behind {
        /// Where it is.
        leader: String,
        /// Its term.
        epoch: Epoch,
    },
    /// Nobody leads, and this origin is about to.
    Between,
    /// This origin leads: the API, and the admin pages.
    Leading { api: Router, admin: Router },
}

/// The doors of an origin: its API's address and its admin address. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: String,
    /// Has to be the leader's.
    record_key: PathBuf,
    standing: watch::Sender<Standing>,
    forwarder: Forwarder,
}

impl Door {
    /// Closed doors. `address` is where others reach this origin's API.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(address: String, record_key: PathBuf) -> Result<Self, reqwest::Error> {
        let standing = Standing::Away {
            why: "it was not asked yet".to_owned(),
        };
        Ok(Self(Arc::new(Inner {
            forwarder: Forwarder::new(&address)?,
            address,
            record_key,
            standing: watch::Sender::new(standing),
        })))
    }

    /// Waits for the lead and takes it. `is_back` says that a process of this address led before and is gone.
    ///
    /// # Errors
    /// When the database cannot be used, other than for now.
    pub async fn lead(&self, place: &Place, is_back: bool) -> Result<Store, StandByError> {
        let mut is_said = false;
        loop {
            match self.attempt(place, is_back).await {
                Ok(store) => {
                    self.set(Standing::Between);
                    return Ok(store);
                }
                Err(StandByError::Store(error)) if error.is_passing() => {
                    let why = chain(&error);
                    if !is_said {
                        tracing::warn!(%place, error = why, "the database is away");
                    }
                    is_said = true;
                    self.set(Standing::Away { why });
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Says no more that this origin stands by, if that can be said quickly.
    pub async fn withdraw(&self, place: &Place) {
        if !matches!(self.standing(), Standing::Behind { .. }) {
            return;
        }
        let withdrawn = tokio::time::timeout(WITHDRAW_LIMIT, async {
            lease::withdraw(&Opened::open(place).await?, &self.0.address).await
        });
        if !matches!(withdrawn.await, Ok(Ok(()))) {
            tracing::debug!("this origin will be shown as silent for a while");
        }
    }

    async fn attempt(&self, place: &Place, is_back: bool) -> Result<Store, StandByError> {
        let opened = Opened::open(place).await?;
        let before = lease::look(&opened).await?;
        if let Some(leader) = before.address.filter(|leader| *leader != self.0.address)
            && !self.0.record_key.exists()
        {
            return Err(StandByError::NoKey {
                leader,
                path: self.0.record_key.clone(),
            });
        }
        let elected = lease::elect(opened, &self.0.address, is_back, |found| {
            let Some(leader) = found.address.clone() else {
                return;
            };
            if let Standing::Behind {
                leader: known,
                epoch,
            } = &*self.0.standing.borrow()
                && (known, epoch) == (&leader, &found.epoch)
            {
                return;
            }
            tracing::info!(leader, epoch = found.epoch.0, "stands by");
            if leader == self.0.address {
                tracing::error!(
                    address = leader,
                    "another origin leads under this one's address: each needs its own `advertise`"
                );
            }
            self.set(Standing::Behind {
                leader,
                epoch: found.epoch,
            });
        });
        Ok(elected.await?)
    }

    /// Opens the doors: this origin leads.
    pub fn open(&self, api: Router, admin: Router) {
        self.set(Standing::Leading { api, admin });
    }

    /// What answers at the API's address.
    pub fn api(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    /// What answers at the admin address.
    pub fn admin(&self) -> Router {
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .fallback(administer)
            .with_state(self.clone())
    }

    fn set(&self, standing: Standing) {
        self.0.standing.send_replace(standing);
    }

    fn standing(&self) -> Standing {
        self.0.standing.borrow().clone()
    }

    /// Waits until somebody else than this leader leads: who was stopped does not say that it is gone.
    fn lost(&self, leader: String) -> impl Future<Output = ()> + Send + 'static {
        let mut standing = self.0.standing.subscribe();
        async move {
            let is_gone = |now: &Standing| !matches!(now, Standing::Behind { leader: now, .. } if *now == leader);
            // A door that is gone has no answers to wait for.
            let _ = standing.wait_for(is_gone).await;
        }
    }
}

async fn answer(State(door): State<Door>, request: Request) -> Response {
    match door.standing() {
        Standing::Leading { api, .. } => through(api, request).await,
        Standing::Behind { leader, .. } => {
            let lost = door.lost(leader.clone());
            door.0.forwarder.forward(&leader, request, lost).await
        }
        Standing::Between => unavailable("no-leader", "no origin leads for a moment; ask again"),
        Standing::Away { .. } => unavailable(
            "database-away",
            "origin cannot reach its database; nothing was changed that it did not confirm: try again",
        ),
    }
}

async fn administer(State(door): State<Door>, request: Request) -> Response {
    let (status, text) = match (door.standing(), request.uri().path()) {
        (Standing::Leading { admin, .. }, _) => return through(admin, request).await,
        (standing, "/readyz") => ready(&standing),
        (_, "/metrics") => {
            let text = "# HELP helix_origin_epoch Term in which this origin leads\n# TYPE helix_origin_epoch gauge\nhelix_origin_epoch 0\n";
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            return (kind, text).into_response();
        }
        _ => (StatusCode::NOT_FOUND, "there is nothing here\n".to_owned()),
    };
    (status, text).into_response()
}

/// Who stands by is ready: what it is asked, the leader answers.
fn ready(standing: &Standing) -> (StatusCode, String) {
    match standing {
        Standing::Behind { leader, epoch } => (
            StatusCode::OK,
            format!("stands by: {leader} leads in term {}\n", epoch.0),
        ),
        Standing::Away { why } => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        Standing::Between | Standing::Leading { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "takes the lead\n".to_owned(),
        ),
    }
}

async fn through(mut router: Router, request: Request<Body>) -> Response {
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn unavailable(kind: &'static str, title: &str) -> Response {
    Rejection::new(StatusCode::SERVICE_UNAVAILABLE, kind, title)
        .header(header::RETRY_AFTER, RETRY_AFTER)
        .into_response()
}
