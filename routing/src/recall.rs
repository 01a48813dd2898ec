//! After a restore: origin asks its edges what they hold, since they may know of more than the backup does.
//!
//! ```text
//!  restored origin ──Recall on each stream's feed──▶ edges ──HeldReport, page by page──▶ origin
//! ```
//!
//! What edges send is what an origin once signed: the snapshot that their state begins with, byte by byte, and the records
//! behind it, each in its envelope. So it speaks for itself, and whoever carries it cannot make anything up.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{BootId, EdgeId, Incarnation, RegionId};
use crate::time::Timestamp;
use crate::wire::Wire;

/// The key that recalls are sealed under; their stream is [`crate::key::Scope::recall`].
pub const RECALL: &str = "_recall";
/// Bytes of records in one page, before which it ends: a report has to fit a message of NATS.
pub const PAGE_BYTES: usize = 192 * 1024;

/// Say what you hold of this stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// Which question this is: the same one is asked until it is answered.
    pub id: String,
    /// The stream.
    pub stream: String,
    /// The life of it that the backup knows of, if it knows of one,
    pub incarnation: Option<Incarnation>,
    /// and how far: what came in that life up to here need not be told.
    pub after: u64,
    /// Edges that have answered; they say nothing more.
    pub heard: Vec<EdgeId>,
    /// Origin's clock.
    pub at: Timestamp,
}

impl Wire for Recall {
    const WHAT: &'static str = "recall";
    // The names of a thousand edges and more.
    const MAX_BYTES: usize = 64 * 1024;
}

/// One page of what an edge holds of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldReport {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// This start of it.
    pub boot: BootId,
    /// The question.
    pub recall: String,
    /// The stream.
    pub stream: String,
    /// Which page, from 0.
    pub page: u32,
    /// How many there are; at least one.
    pub pages: u32,
    /// What is on it.
    pub held: Held,
}

/// What a page holds. Those of a snapshot come first, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// The next bytes of the snapshot, as it was published.
    Snapshot(Vec<u8>),
    /// Records, as they were published.
    Records(Vec<HeldRecord>),
}

/// A record that an edge holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRecord {
    /// Its key in the stream.
    pub key: String,
    /// The envelope.
    pub sealed: Vec<u8>,
}

impl Wire for HeldReport {
    const WHAT: &'static str = "report of what is held";
    // One record of the largest size on top of a full page.
    const MAX_BYTES: usize = 768 * 1024;
}

/// Cuts what is held into pages; there is always one.
#[must_use]
pub fn pages(snapshot: &[u8], records: Vec<HeldRecord>) -> Vec<Held> {
    let bytes = snapshot.chunks(PAGE_BYTES).map(<[u8]>::to_vec);
    let mut pages: Vec<Held> = bytes.map(Held::Snapshot).collect();
    let (mut page, mut size) = (Vec::new(), 0);
    for record in records {
        if size >= PAGE_BYTES {
            pages.push(Held::Records(core::mem::take(&mut page)));
            size = 0;
        }
        size += record.sealed.len() + record.key.len();
        page.push(record);
    }
    if !page.is_empty() || pages.is_empty() {
        pages.push(Held::Records(page));
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_everything_once_and_none_is_too_large() {
        for (snapshot, count, size, expected) in [
            (0, 0, 0, 1),
            (0, 1, 10, 1),
            (0, 100, 4000, 2),
            (0, 3, 200_000, 3),
            (1, 0, 0, 1),
            (PAGE_BYTES, 1, 10, 2),
            (PAGE_BYTES + 1, 3, 200_000, 5),
        ] {
            let bytes: Vec<u8> = (0..snapshot).map(|at| (at % 251) as u8).collect();
            let record = |at: usize| HeldRecord {
                key: alloc::format!("cut.{at}"),
                sealed: alloc::vec![0; size],
            };
            let cut = pages(&bytes, (0..count).map(record).collect());
            assert_eq!(cut.len(), expected, "{snapshot} and {count} of {size}");
            let (mut together, mut records, mut most) = (Vec::new(), 0, 0);
            for page in cut {
                match page {
                    Held::Snapshot(bytes) => {
                        assert_eq!(records, 0, "the snapshot comes first");
                        most = most.max(bytes.len());
                        together.extend(bytes);
                    }
                    Held::Records(page) => {
                        records += page.len();
                        most = most.max(page.iter().map(|record| record.sealed.len()).sum());
                    }
                }
            }
            assert_eq!((together, records), (bytes, count));
            assert!(most <= PAGE_BYTES + size, "{most}");
        }
    }
}
