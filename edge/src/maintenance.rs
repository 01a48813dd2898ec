//! Whether this edge is taken out for maintenance: what its newest record says, for those who act on it.
//!
//! While it is, `readyz` says so, and the listener lets connections end as they become idle (see [`crate::listener`]); new ones
//! are served all the same, since a load balancer needs a moment to look. Records are followed as ever.

use std::sync::Arc;

use helix_routing::edge::record::{Drain, EdgeRecord};
use helix_routing::id::{EdgeId, Generation};
use tokio::sync::watch;

/// What the edge was told last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// By which record.
    pub generation: Generation,
    /// To let its visitors go elsewhere.
    pub drain: Option<Drain>,
}

/// Shared by the agent, which is told, and by all who act on it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Maintenance {
    edge: Option<EdgeId>,
    told: Arc<watch::Sender<Told>>,
}

impl Default for Maintenance {
    /// Of no edge: nothing is ever told.
    fn default() -> Self {
        Self {
            edge: None,
            told: Arc::new(watch::Sender::new(Told::default())),
        }
    }
}

impl Maintenance {
    /// Nothing was told yet to `edge`.
    #[must_use]
    pub fn of(edge: &EdgeId) -> Self {
        Self {
            edge: Some(edge.clone()),
            ..Self::default()
        }
    }

    /// Takes over what the record says, if it is about this edge.
    pub fn adopt(&self, record: &EdgeRecord) {
        if self.edge.as_ref() != Some(&record.edge) {
            return;
        }
        let told = Told {
            generation: record.generation,
            drain: record.drain.clone(),
        };
        self.told.send_if_modified(|held| {
            let is_news = *held != told;
            if is_news {
                let words = |told: &Told| {
                    if told.drain.is_some() {
                        "drains"
                    } else {
                        "serves"
                    }
                };
                let reason = told.drain.as_ref().map(|drain| &drain.reason);
                tracing::info!(from = words(held), to = words(&told), reason, "maintenance");
                *held = told;
            }
            is_news
        });
    }

    /// The stream says nothing of this edge any more.
    pub fn dropped(&self, edge: &str) {
        if self.edge.as_ref().is_some_and(|own| own.as_str() == edge) {
            self.told.send_replace(Told::default());
        }
    }

    /// Follows what is told.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    /// What was told last.
    #[must_use]
    pub fn told(&self) -> Told {
        self.told.borrow().clone()
    }

    /// Whether visitors are to go elsewhere.
    #[must_use]
    pub fn drains(&self) -> bool {
        self.told.borrow().drain.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::id::Epoch;
    use helix_routing::time::Timestamp;

    #[test]
    fn an_edge_heeds_what_is_said_of_itself_alone() {
        let maintenance = Maintenance::of(&"fra-1".parse().unwrap());
        let mut record =
            EdgeRecord::blank("fra-2".parse().unwrap(), "fra".parse().unwrap(), Epoch(1));
        record.generation = Generation(1);
        record.drain = Some(Drain {
            reason: "disk".to_owned(),
            since: Timestamp::default(),
            until: None,
        });
        maintenance.adopt(&record);
        assert!(!maintenance.drains());
        record.edge = "fra-1".parse().unwrap();
        maintenance.adopt(&record);
        assert!(maintenance.drains());
        maintenance.dropped("fra-2");
        assert!(maintenance.drains());
        maintenance.dropped("fra-1");
        assert!(!maintenance.drains());
    }
}
