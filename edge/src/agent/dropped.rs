//! What a stream no longer says. Hosts are left to `hosting`.

use helix_routing::id::SiteId;
use helix_routing::record::SiteRecord;

use super::Agent;
use super::placement::Event;

impl Agent {
    /// The stream no longer has this key: as if a tombstone had come.
    pub(super) fn dropped(&mut self, key: &str) {
        if let Some(site) = key
            .strip_prefix("cut.")
            .and_then(|site| site.parse::<SiteId>().ok())
        {
            let removed = self
                .places
                .get(&site)
                .and_then(|place| place.placement.record())
                .map(|record| SiteRecord {
                    removed: true,
                    ..record.clone()
                });
            if let Some(record) = removed {
                self.step(&site, Event::Recorded(Box::new(record)));
            }
        } else if let Some(site) = key
            .strip_prefix("purge.")
            .and_then(|site| site.parse().ok())
        {
            self.purging.dropped(&site);
        } else if let Some(edge) = key.strip_prefix("edge.") {
            self.maintenance.dropped(edge);
        }
    }
}
