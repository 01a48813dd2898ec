//! The next certificate of an edge that joined.
//!
//! Whoever asks shows that it is the edge by its NATS user's signature, so nothing else is needed; the moment is signed along, so that what
//! was overheard is soon worth nothing. A removed edge gets none.

use std::net::IpAddr;

use helix_routing::api::Role;
use helix_routing::edge::join::{MAX_CLOCK_SECONDS, RenewalRequest, Renewed};
use helix_routing::time::Timestamp;
use helix_service::clock;

use super::{Admission, AdmissionError, enrolled, proof};
use crate::auth::Caller;
use crate::fleet::Roster;
use crate::store::Store;

impl Admission {
    /// Gives an edge its next certificate.
    ///
    /// # Errors
    /// As [`AdmissionError`] says.
    pub async fn renew(
        &self,
        store: &Store,
        roster: &Roster,
        from: Option<IpAddr>,
        request: &RenewalRequest,
    ) -> Result<Renewed, AdmissionError> {
        let now = clock::now();
        if !self.0.tries.may_try(from, now) {
            return Err(AdmissionError::TooManyTries);
        }
        let renewed = self.certify(store, roster, request, now).await;
        if matches!(renewed, Err(AdmissionError::Proof { .. })) {
            self.0.tries.failed(from, now);
        }
        renewed
    }

    async fn certify(
        &self,
        store: &Store,
        roster: &Roster,
        request: &RenewalRequest,
        now: Timestamp,
    ) -> Result<Renewed, AdmissionError> {
        let apart = now.since(request.at).max(request.at.since(now)).as_secs();
        if apart > MAX_CLOCK_SECONDS {
            return Err(AdmissionError::Clock { apart });
        }
        let edge = &request.edge;
        let joined = enrolled::user(store, edge).await?;
        let not_joined = || AdmissionError::NotJoined(edge.clone());
        let (user, region) = joined.ok_or_else(not_joined)?;
        let point = proof::renewed_point(request, &user)?;
        let authority = &self.0.authority;
        let issued = authority.issue(edge, &region, &point)?;
        let mut tx = store.write().await?;
        if !enrolled::certify(&mut tx, edge, &user, &issued).await? {
            return Err(not_joined());
        }
        let by = Caller {
            id: user,
            name: format!("edge {edge}"),
            role: Role::Edge,
            request: None,
        };
        let serial = Some(issued.serial.as_str());
        crate::audit::note(&mut tx, &by, "edge.renew", edge.as_str(), serial).await?;
        tx.commit().await?;
        roster.certified(edge, issued.until);
        Ok(Renewed {
            certificate: issued.pem,
            authority: authority.pem.clone(),
            certificate_until: issued.until,
        })
    }
}
