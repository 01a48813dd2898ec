//! Whether a record of the stream may count, and how one that may not is told.

use std::error::Error;

use helix_routing::glass::signed;
use helix_routing::id::{Epoch, Incarnation, ReleaseId};
use helix_routing::record::{Order, SiteRecord};
use helix_service::clock;

use super::record::{self, Opened, Record, Rejected};
use super::{Change, Feed, Refused};

impl Feed {
    pub(super) fn open(
        &self,
        key: &str,
        sealed: bytes::Bytes,
        life: Option<&Incarnation>,
        known: Epoch,
    ) -> Result<Opened, Rejected> {
        let opened = record::open(&self.ring, &self.scope, life, key, sealed)?;
        if opened.sealed_epoch < known {
            return Err(Rejected::OldTerm {
                found: opened.sealed_epoch,
                known,
            });
        }
        if opened.by_operator
            && let Record::Site(site) = &opened.record
            && self.ledger.order(&opened) == Order::Newer
        {
            self.check_override(site)?;
        }
        Ok(opened)
    }

    /// What an operator has signed may only move a site to a release that is ready here.
    fn check_override(&self, site: &SiteRecord) -> Result<(), Rejected> {
        let serving = self.table.site(&site.site).map(|site| site.serving());
        let ready: Vec<ReleaseId> = serving
            .iter()
            .flat_map(|serving| serving.live.iter().chain(&serving.kept))
            .map(|release| release.id.clone())
            .collect();
        Ok(signed::check(
            site,
            &ready,
            self.ledger.origin_epoch(),
            clock::now(),
        )?)
    }

    pub(super) fn refuse(&self, key: String, sequence: u64, error: &Rejected) -> Change {
        tracing::warn!(
            stream = self.scope.stream(),
            key,
            sequence,
            error = error as &dyn Error,
            "record is refused"
        );
        let mut reason = error.to_string();
        if let Some(source) = error.source() {
            reason = format!("{reason}: {source}");
        }
        self.refused(key, sequence, reason)
    }

    pub(super) fn refused(&self, key: String, sequence: u64, reason: String) -> Change {
        Change::Refused(Refused {
            stream: self.scope.stream(),
            key,
            sequence,
            reason,
        })
    }
}
