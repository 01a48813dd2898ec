//! Hosts: records that come, move and go, on the stream of all edges, without any order between them and the site's.

use helix_routing::host::HostPattern;
use helix_routing::id::{Epoch, Generation, SiteId};
use helix_routing::record::HostRecord;

use crate::checks::Check;
use crate::sides::{Beside, Key, Says};
use crate::world::World;

/// How many there are.
pub(crate) const HOSTS: u8 = 3;

fn pattern(host: u8) -> HostPattern {
    let name = match host {
        0 => "shop.example",
        1 => "*.shop.example",
        _ => "old.example",
    };
    name.parse().unwrap()
}

impl World {
    /// Sites that a host can be of: ours, and one beside it.
    fn site(&self, site: u8) -> Option<SiteId> {
        match site {
            0 => Some(self.names.site.clone()),
            1 => Some("blog/production".parse().unwrap()),
            _ => None,
        }
    }

    /// Points a host at a site; at none it leaves a tombstone. What is so already is left alone.
    pub(crate) fn put_host(&mut self, epoch: Epoch, host: u8, site: u8) {
        let key = Key::Host(host);
        let site = self.site(site);
        let held = self.sql.sides.get(&key).map(|side| &side.says);
        let (generation, is_same) = match held {
            Some(Says::Host(held)) => (held.generation, held.site == site),
            Some(_) | None => (Generation(0), site.is_none()),
        };
        if is_same {
            return;
        }
        self.counts.count(match (&site, generation.0) {
            (None, _) => "a host went",
            (Some(_), 0) => "a host came",
            (Some(_), _) => "a host moved",
        });
        let record = HostRecord {
            host: pattern(host),
            epoch,
            generation: generation.next(),
            site,
        };
        self.sql
            .sides
            .insert(key, Beside::new(key, Says::Host(record)));
    }

    pub(crate) fn told_of_host(&mut self, edge: usize, host: u8, record: &HostRecord) {
        let routes = &mut self.edges[edge].routes;
        let before = routes.insert(host, record.clone());
        if before.is_some_and(|before| before.generation > record.generation) {
            let text = format!("{} goes back to {record:?}", self.names.edges[edge]);
            self.fail(Check::Routed, text);
        }
    }

    /// Once all is quiet every edge routes every host as SQL says.
    pub(crate) fn check_routed(&mut self) {
        for edge in 0..self.edges.len() {
            for host in 0..HOSTS {
                let said = self.sql.sides.get(&Key::Host(host)).map(|side| &side.says);
                let said = match said {
                    Some(Says::Host(said)) => Some(said),
                    Some(_) | None => None,
                };
                let routed = self.edges[edge].routes.get(&host);
                if routed != said {
                    let text = format!(
                        "{} routes by {routed:?}, and SQL says {said:?}",
                        self.names.edges[edge]
                    );
                    return self.fail(Check::Routed, text);
                }
            }
        }
    }
}
