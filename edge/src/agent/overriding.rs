//! Pure. What there is to tell origin of overrides: of those that stand the newest word on each site, and which are over.

use std::collections::BTreeMap;

use helix_routing::glass::{EndedOverrides, LocalOverride};
use helix_routing::id::SiteId;
use helix_routing::time::Timestamp;

/// What there is to tell, and what of it was.
#[derive(Debug, Default)]
pub(super) struct Overriding {
    /// The newest word on each site that was overridden here, and whether that was sent.
    local: BTreeMap<SiteId, (Option<LocalOverride>, bool)>,
    /// Overrides of this edge that are over, and whether that was sent.
    ended: (EndedOverrides, bool),
    /// Until when overrides of the region are meant, for the metrics: origin reads them where we do.
    signed: BTreeMap<SiteId, Timestamp>,
}

impl Overriding {
    /// An override of this edge stands, or is over.
    pub(super) fn stands(&mut self, site: &SiteId, standing: Option<LocalOverride>) {
        self.local.insert(site.clone(), (standing, false));
    }

    /// These overrides of this edge are over.
    pub(super) fn ended(&mut self, ended: EndedOverrides) {
        self.ended = (ended, false);
    }

    /// The newest record of a site is an override of the region until then, or is none.
    pub(super) fn signed(&mut self, site: &SiteId, until: Option<Timestamp>) {
        match until {
            Some(until) => self.signed.insert(site.clone(), until),
            None => self.signed.remove(site),
        };
    }

    /// The newest word on a site that origin has not been told yet.
    pub(super) fn untold(&mut self) -> Option<(SiteId, Option<LocalOverride>)> {
        let mut unsent = self.local.iter_mut().filter(|(_, (_, sent))| !sent);
        let (site, (standing, sent)) = unsent.next()?;
        *sent = true;
        Some((site.clone(), standing.clone()))
    }

    /// What is over, unless origin was told.
    pub(super) fn untold_ended(&mut self) -> Option<EndedOverrides> {
        let (ended, sent) = &mut self.ended;
        let was_sent = std::mem::replace(sent, true);
        (!was_sent && !ended.overrides.is_empty()).then(|| ended.clone())
    }

    /// What stands is told again.
    pub(super) fn repeat_standing(&mut self) {
        for (standing, sent) in self.local.values_mut() {
            *sent &= standing.is_none();
        }
    }

    /// What is over is told again.
    pub(super) const fn repeat_ended(&mut self) {
        self.ended.1 = false;
    }

    /// Everything is told again.
    pub(super) fn repeat_all(&mut self) {
        for (_, sent) in self.local.values_mut() {
            *sent = false;
        }
        self.repeat_ended();
    }

    /// How many sites are overridden here within the time that was meant, and how many beyond it.
    pub(super) fn count(&self, now: Timestamp) -> (i64, i64) {
        let locals = self.local.values();
        let locals = locals.filter_map(|(local, _)| Some(local.as_ref()?.until));
        let (mut standing, mut expired) = (0, 0);
        for until in locals.chain(self.signed.values().copied()) {
            let count = if now >= until {
                &mut expired
            } else {
                &mut standing
            };
            *count += 1;
        }
        (standing, expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::glass::{Cause, EndedOverride};
    use helix_routing::id::Generation;
    use helix_routing::record::ReleaseRef;

    fn local(until: u64) -> LocalOverride {
        LocalOverride {
            site: "shop/production".parse().unwrap(),
            release: ReleaseRef {
                release: "a".repeat(20).parse().unwrap(),
                artifact: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
            },
            left: None,
            base: Generation(7),
            cause: Cause::Operator,
            reason: "sick".to_owned(),
            by: "ada".to_owned(),
            since: Timestamp::from_millis(1),
            until: Timestamp::from_millis(until),
        }
    }

    #[test]
    fn everything_is_told_once_until_it_is_to_be_repeated() {
        let mut told = Overriding::default();
        assert_eq!((told.untold(), told.untold_ended()), (None, None));
        let site = local(9).site;
        told.stands(&site, Some(local(9)));
        assert_eq!(told.count(Timestamp::from_millis(8)), (1, 0));
        assert_eq!(told.count(Timestamp::from_millis(9)), (0, 1));
        assert_eq!(told.untold(), Some((site.clone(), Some(local(9)))));
        assert_eq!(told.untold(), None);
        told.repeat_standing();
        assert!(told.untold().is_some(), "it stands");
        let mut ended = EndedOverrides::default();
        ended.add(EndedOverride {
            local: local(9),
            ended: Timestamp::from_millis(5),
        });
        told.ended(ended.clone());
        told.stands(&site, None);
        assert_eq!(told.count(Timestamp::from_millis(8)), (0, 0));
        assert_eq!(told.untold(), Some((site, None)));
        assert_eq!(told.untold_ended(), Some(ended));
        told.repeat_standing();
        assert_eq!((told.untold(), told.untold_ended()), (None, None));
        told.repeat_ended();
        assert!(told.untold_ended().is_some() && told.untold().is_none());
        told.repeat_all();
        assert!(told.untold_ended().is_some() && told.untold().is_some());
    }
}
