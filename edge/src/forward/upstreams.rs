//! Every upstream that a release of this edge names.
//!
//! Releases that define an upstream alike share it, so that a cutover keeps connections and what is known of
//! its servers. A release holds its groups; when the last one lets go, a group is gone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwap;
use helix_routing::id::SiteId;
use helix_routing::routes::{Routes, Upstream};

use super::group::Group;
use super::health::State;
use helix_service::reachable::Reachable;

/// What this edge knows of upstreams.
#[derive(Debug, Default)]
pub struct Upstreams {
    reachable: Arc<Reachable>,
    groups: Mutex<HashMap<(SiteId, Upstream), Weak<Group>>>,
    made: AtomicU64,
}

/// The groups that a release holds, by rule; made when first asked for.
#[derive(Debug, Default)]
pub struct Groups(ArcSwap<Slots>);

#[derive(Debug, Default)]
struct Slots(OnceLock<Box<[OnceLock<Arc<Group>>]>>);

impl Groups {
    /// Lets go of all: who asks from now on gets others, once [`Upstreams::renew`] has forgotten these.
    pub(crate) fn renew(&self) {
        self.0.store(Arc::default());
    }
}

impl Upstreams {
    /// None yet; they may be at addresses that `reachable` permits.
    #[must_use]
    pub fn new(reachable: Reachable) -> Self {
        Self {
            reachable: Arc::new(reachable),
            ..Self::default()
        }
    }

    /// The group of a rule, held by `groups` from now on.
    pub fn group(
        &self,
        site: &SiteId,
        routes: &Routes,
        groups: &Groups,
        rule: usize,
    ) -> Option<Arc<Group>> {
        let slots = groups.0.load();
        let slots = slots.0.get_or_init(|| {
            (0..routes.forward_count())
                .map(|_| OnceLock::new())
                .collect()
        });
        let slot = slots.get(rule)?;
        if slot.get().is_none() {
            let (_, upstream) = routes.forward(rule)?;
            slot.get_or_init(|| self.shared(site, upstream));
        }
        slot.get().cloned()
    }

    /// Forgets the groups of a site, and with them what is known of its servers.
    pub(crate) fn renew(&self, site: &SiteId) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|(of, _), _| of != site);
    }

    /// The group of an upstream, whether a rule leads to it or not. It lives as long as somebody holds it.
    pub(crate) fn named(&self, site: &SiteId, upstream: &Upstream) -> Arc<Group> {
        self.shared(site, upstream)
    }

    /// What every server that is known is held for.
    pub(crate) fn states(&self) -> Vec<State> {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = groups.values().filter_map(Weak::upgrade);
        alive.flat_map(|group| group.states()).collect()
    }

    fn shared(&self, site: &SiteId, upstream: &Upstream) -> Arc<Group> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (site.clone(), upstream.clone());
        if let Some(group) = groups.get(&key).and_then(Weak::upgrade) {
            return group;
        }
        groups.retain(|_, group| group.strong_count() > 0);
        let id = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let group = Group::new(
            id,
            site.clone(),
            upstream.clone(),
            Arc::clone(&self.reachable),
        );
        groups.insert(key, Arc::downgrade(&group));
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(port: u16) -> Routes {
        let text = format!(
            r#"{{"upstreams":{{"api":{{"addresses":["http://127.0.0.1:{port}"]}}}},
                "forwards":[{{"path":"/a","upstream":"api"}},{{"path":"/b","upstream":"api"}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn equal_upstreams_of_a_site_are_one_as_long_as_a_release_lives() {
        let upstreams = Upstreams::default();
        let (site, other): (SiteId, SiteId) = (
            "a/production".parse().unwrap(),
            "b/production".parse().unwrap(),
        );
        let (first, second, third) = (Groups::default(), Groups::default(), Groups::default());
        let of = |site: &SiteId, groups: &Groups, rule| {
            upstreams.group(site, &routes(1), groups, rule).unwrap()
        };
        let one = of(&site, &first, 0);
        assert!(Arc::ptr_eq(&one, &of(&site, &first, 1)));
        assert!(Arc::ptr_eq(&one, &of(&site, &second, 0)));
        assert!(!Arc::ptr_eq(&one, &of(&other, &third, 0)));
        assert!(upstreams.group(&site, &routes(1), &first, 2).is_none());
        let id = one.id;
        drop((one, first, second));
        let again = Groups::default();
        let again = upstreams.group(&site, &routes(1), &again, 0).unwrap().id;
        assert_ne!(again, id);
        assert_eq!(upstreams.groups.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_site_that_begins_anew_has_new_groups_and_others_keep_theirs() {
        let upstreams = Upstreams::default();
        let site = |name: &str| -> SiteId { format!("{name}/production").parse().unwrap() };
        let (live, kept, other) = (Groups::default(), Groups::default(), Groups::default());
        let of = |name: &str, groups: &Groups| {
            upstreams.group(&site(name), &routes(1), groups, 0).unwrap()
        };
        let (before, elsewhere) = (of("a", &live), of("b", &other));
        assert!(Arc::ptr_eq(&before, &of("a", &kept)));
        upstreams.renew(&site("a"));
        live.renew();
        kept.renew();
        let after = of("a", &live);
        assert_ne!(after.id, before.id, "requests in flight keep the old one");
        assert!(Arc::ptr_eq(&after, &of("a", &kept)));
        assert!(Arc::ptr_eq(&elsewhere, &of("b", &other)));
    }
}
