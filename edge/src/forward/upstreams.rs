//! Every upstream that a release of this edge names.
//!
//! Releases that define an upstream alike share it, so that a cutover keeps connections and what is known of
//! its servers. A release holds its groups; when the last one lets go, a group is gone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use helix_routing::id::SiteId;
use helix_routing::routes::{Routes, Upstream};

use super::group::Group;
use super::health::State;
use super::reachable::Reachable;

/// What this edge knows of upstreams.
#[derive(Debug, Default)]
pub struct Upstreams {
    reachable: Arc<Reachable>,
    groups: Mutex<HashMap<(SiteId, Upstream), Weak<Group>>>,
    made: AtomicU64,
}

/// The groups that a release holds, by rule; made when first asked for.
#[derive(Debug, Default)]
pub struct Groups(OnceLock<Box<[OnceLock<Arc<Group>>]>>);

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
    pub fn group<'a>(
        &self,
        site: &SiteId,
        routes: &Routes,
        groups: &'a Groups,
        rule: usize,
    ) -> Option<&'a Arc<Group>> {
        let slots = groups
            .0
            .get_or_init(|| routes.forwards.iter().map(|_| OnceLock::new()).collect());
        let slot = slots.get(rule)?;
        if slot.get().is_none() {
            let (_, upstream) = routes.forward(rule)?;
            slot.get_or_init(|| self.shared(site, upstream));
        }
        slot.get()
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
        let one = Arc::clone(upstreams.group(&site, &routes(1), &first, 0).unwrap());
        assert!(Arc::ptr_eq(
            &one,
            upstreams.group(&site, &routes(1), &first, 1).unwrap()
        ));
        assert!(Arc::ptr_eq(
            &one,
            upstreams.group(&site, &routes(1), &second, 0).unwrap()
        ));
        assert!(!Arc::ptr_eq(
            &one,
            upstreams.group(&other, &routes(1), &third, 0).unwrap()
        ));
        assert!(upstreams.group(&site, &routes(1), &first, 2).is_none());
        let id = one.id;
        drop((one, first, second));
        let again = Groups::default();
        let again = upstreams.group(&site, &routes(1), &again, 0).unwrap().id;
        assert_ne!(again, id);
        assert_eq!(upstreams.groups.lock().unwrap().len(), 2);
    }
}
