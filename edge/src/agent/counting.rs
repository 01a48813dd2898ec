//! What is counted of each site's live release, and told to origin while it bakes.
//!
//! ```text
//! swap ──▶ new counts; what the release before showed lately is kept ──record says it bakes──▶ a report each second
//! ```
//!
//! Counts begin at the swap and only rise. Whether and for how long there is a bake is origin's to say: it sends the record
//! again and again meanwhile, and when it stops, so does this.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use helix_routing::bake::Window;
use helix_routing::id::{Generation, ReleaseId, SiteId};
use helix_routing::record::SiteRecord;
use helix_routing::report::Baseline;
use helix_routing::time::Timestamp;
use tokio::time::Instant;

use super::Place;
use super::reports::Reports;
use crate::counted::Counted;
use crate::in_flight::{InFlight, Load};

/// How often counts are told while a release bakes.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// For how long they are told after the record was last received: origin sends it every five seconds.
const TOLD_AFTER_RECORD: Duration = Duration::from_secs(15);
/// A bake that should have ended so long ago is none: an edge without state reads records of all times.
const LONGEST_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One site's live release.
#[derive(Debug, Default)]
pub(super) struct Watch {
    live: Option<Box<Live>>,
    /// What the release before showed lately, when it was swapped.
    before: Option<Box<Baseline>>,
    /// A candidate that a share of the visitors gets.
    canary: Option<Box<Canary>>,
}

/// A candidate, counted beside what is live since its share changed.
#[derive(Debug)]
struct Canary {
    release: ReleaseId,
    weight: u8,
    since: Generation,
    counted: Arc<Counted>,
    /// What was counted of the live release when this began.
    live_mark: Window,
}

/// Where requests to what is served are counted.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) counted: Arc<Counted>,
    pub(super) in_flight: Arc<InFlight>,
}

impl Counts {
    /// Of sites that serve nothing, for all of them the same: nobody reads them.
    fn of_nothing() -> Self {
        static COUNTED: LazyLock<Arc<Counted>> = LazyLock::new(Arc::default);
        static IN_FLIGHT: LazyLock<Arc<InFlight>> = LazyLock::new(Arc::default);
        Self {
            counted: Arc::clone(&COUNTED),
            in_flight: Arc::clone(&IN_FLIGHT),
        }
    }
}

/// What a swap ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) release: ReleaseId,
    pub(super) since: Generation,
    pub(super) in_flight: Arc<InFlight>,
    /// The same release is served under a later generation: a restart, or it went and came back between two looks.
    pub(super) is_again: bool,
}

#[derive(Debug)]
struct Live {
    release: ReleaseId,
    since: Generation,
    counted: Arc<Counted>,
    in_flight: Arc<InFlight>,
    /// What was counted at the two newest marks: "lately" begins at the older.
    marks: [Window; 2],
}

impl Watch {
    /// Follows what is served: a swap begins new counts. Returns those that requests are to be counted in, and what the swap
    /// has ended.
    pub(super) fn follow(
        &mut self,
        live: Option<&ReleaseId>,
        since: Generation,
    ) -> (Counts, Option<Ended>) {
        let Some(release) = live else {
            let ended = std::mem::take(self).live.map(|held| held.ended(false));
            return (Counts::of_nothing(), ended);
        };
        let ended = match self.live.take() {
            Some(held) if held.release == *release && held.since == since => {
                let counts = held.counts();
                self.live = Some(held);
                return (counts, None);
            }
            // What was before it then is before it now.
            Some(held) if held.release == *release => Some(held.ended(true)),
            Some(held) => {
                self.before = Some(Box::new(Baseline {
                    release: held.release.clone(),
                    window: held.lately(),
                }));
                Some(held.ended(false))
            }
            None => {
                self.before = None;
                None
            }
        };
        let live = Live {
            release: release.clone(),
            since,
            counted: Arc::default(),
            in_flight: Arc::default(),
            marks: [Window::default(), Window::default()],
        };
        let counts = live.counts();
        self.live = Some(Box::new(live));
        (counts, ended)
    }

    /// What is live, since when, and what of it is in flight.
    pub(super) fn live(&self) -> Option<(&ReleaseId, Generation, Load)> {
        let live = self.live.as_ref()?;
        Some((&live.release, live.since, live.in_flight.load()))
    }

    /// Follows who gets the candidate, after [`Watch::follow`]: with another share new counts begin, for both, so that they
    /// are of the same time. Returns those of the candidate.
    pub(super) fn follow_canary(
        &mut self,
        canary: Option<(&ReleaseId, u8)>,
        generation: Generation,
    ) -> Option<Arc<Counted>> {
        let live = self.live.as_ref().map(|live| live.counted.window());
        let (Some((release, weight)), Some(live_mark)) = (canary, live) else {
            self.canary = None;
            return None;
        };
        let same = self
            .canary
            .as_ref()
            .filter(|held| held.release == *release && held.weight == weight);
        if let Some(held) = same {
            return Some(Arc::clone(&held.counted));
        }
        let counted = Arc::<Counted>::default();
        self.canary = Some(Box::new(Canary {
            release: release.clone(),
            weight,
            since: generation,
            counted: Arc::clone(&counted),
            live_mark,
        }));
        Some(counted)
    }

    /// What is told of the release that is watched: the candidate beside what is live, else what is live and what was before.
    fn told(&self) -> Option<(&ReleaseId, Generation, Window, Option<Baseline>)> {
        let live = self.live.as_ref()?;
        let Some(canary) = &self.canary else {
            let window = live.counted.window();
            return Some((
                &live.release,
                live.since,
                window,
                self.before.as_deref().cloned(),
            ));
        };
        let beside = Baseline {
            release: live.release.clone(),
            window: live.counted.window().since(&canary.live_mark),
        };
        let window = canary.counted.window();
        Some((&canary.release, canary.since, window, Some(beside)))
    }

    /// What was counted of what is live, and what the release before showed.
    pub(super) fn seen(&self) -> Option<(&ReleaseId, Window, Option<&Window>)> {
        let live = self.live.as_ref()?;
        let before = self.before.as_ref().map(|before| &before.window);
        Some((&live.release, live.counted.window(), before))
    }

    /// Some minutes have passed.
    pub(super) fn mark(&mut self) {
        if let Some(live) = &mut self.live {
            let now = live.counted.window();
            let [_, newer] = std::mem::take(&mut live.marks);
            live.marks = [newer, now];
        }
    }
}

impl Live {
    fn counts(&self) -> Counts {
        Counts {
            counted: Arc::clone(&self.counted),
            in_flight: Arc::clone(&self.in_flight),
        }
    }

    fn ended(self, is_again: bool) -> Ended {
        Ended {
            release: self.release,
            since: self.since,
            in_flight: self.in_flight,
            is_again,
        }
    }

    fn lately(&self) -> Window {
        self.counted.window().since(&self.marks[0])
    }
}

/// The sites that bake, and until when their counts are told.
#[derive(Debug, Default)]
pub(super) struct Baking(HashMap<SiteId, Instant>);

impl Baking {
    /// A record was received.
    pub(super) fn record(&mut self, record: &SiteRecord, now: Timestamp) {
        let bakes = record
            .bake_until
            .is_some_and(|until| now < until + LONGEST_DELAY);
        if bakes || record.weight.is_some() {
            let until = Instant::now() + TOLD_AFTER_RECORD;
            self.0.insert(record.site.clone(), until);
        } else {
            self.0.remove(&record.site);
        }
    }

    /// Tells what was counted of each.
    pub(super) fn report(&mut self, places: &HashMap<SiteId, Box<Place>>, reports: &Reports) {
        let now = Instant::now();
        self.0.retain(|_, until| now < *until);
        for site in self.0.keys() {
            let told = places.get(site).and_then(|place| place.watch.told());
            if let Some((release, since, window, baseline)) = told {
                reports.counted(site, (release, since), window, baseline);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(digit: char) -> ReleaseId {
        String::from(digit).repeat(20).parse().unwrap()
    }

    fn count(counted: &Counted, requests: usize) {
        for _ in 0..requests {
            counted.finished(0, None, Some(Duration::ZERO));
        }
    }

    fn before(watch: &Watch) -> Option<(&ReleaseId, u64)> {
        let before = watch.before.as_ref()?;
        Some((&before.release, before.window.requests()))
    }

    #[test]
    fn a_swap_begins_new_counts_and_keeps_what_was_before() {
        let (a, b) = (release('a'), release('b'));
        let mut watch = Watch::default();
        let (first, ended) = watch.follow(Some(&a), Generation(2));
        assert!(ended.is_none());
        assert_eq!(before(&watch), None);
        count(&first.counted, 3);
        let (same, ended) = watch.follow(Some(&a), Generation(2));
        let is_same = Arc::ptr_eq(&first.counted, &same.counted);
        assert!(is_same && ended.is_none(), "nothing was swapped");
        let (second, ended) = watch.follow(Some(&b), Generation(4));
        let ended = ended.unwrap();
        assert_eq!((&ended.release, ended.since), (&a, Generation(2)));
        assert!(Arc::ptr_eq(&ended.in_flight, &first.in_flight) && !ended.is_again);
        assert_eq!(second.counted.window().requests(), 0);
        assert_eq!(before(&watch), Some((&a, 3)));
        // Live again under a later generation: restarted, or with something in between that was never seen here.
        count(&second.counted, 5);
        let (again, ended) = watch.follow(Some(&b), Generation(6));
        assert_eq!(again.counted.window().requests(), 0);
        assert!(ended.unwrap().is_again && !Arc::ptr_eq(&again.in_flight, &second.in_flight));
        assert_eq!(before(&watch), Some((&a, 3)));
        let (_, ended) = watch.follow(None, Generation(7));
        assert_eq!(ended.unwrap().since, Generation(6));
        watch.follow(Some(&b), Generation(8));
        assert_eq!(before(&watch), None);
    }

    #[test]
    fn a_candidate_is_counted_beside_what_is_live_since_its_share_changed() {
        let (a, b) = (release('a'), release('b'));
        let mut watch = Watch::default();
        let told = |watch: &Watch| {
            let (release, since, window, baseline) = watch.told().unwrap();
            let baseline = baseline.map(|held| (held.release, held.window.requests()));
            (release.clone(), since.0, window.requests(), baseline)
        };
        let live = watch.follow(Some(&a), Generation(1)).0.counted;
        count(&live, 50);
        assert!(watch.follow_canary(None, Generation(1)).is_none());
        let five = watch.follow_canary(Some((&b, 5)), Generation(3)).unwrap();
        count(&live, 19);
        count(&five, 1);
        assert_eq!(told(&watch), (b.clone(), 3, 1, Some((a.clone(), 19))));
        let same = watch.follow_canary(Some((&b, 5)), Generation(4)).unwrap();
        assert!(Arc::ptr_eq(&five, &same), "nothing has changed");
        let half = watch.follow_canary(Some((&b, 50)), Generation(5)).unwrap();
        count(&live, 2);
        count(&half, 3);
        assert_eq!(told(&watch), (b.clone(), 5, 3, Some((a.clone(), 2))));
        // Committed: what was live is the measure, as after any swap.
        watch.follow(Some(&b), Generation(6));
        assert!(watch.follow_canary(None, Generation(6)).is_none());
        assert_eq!(told(&watch), (b, 6, 0, Some((a, 71))));
    }

    #[test]
    fn lately_is_between_one_and_two_marks_long() {
        let (a, b) = (release('a'), release('b'));
        let mut watch = Watch::default();
        let (counts, _) = watch.follow(Some(&a), Generation(1));
        for requests in [100, 20, 3] {
            count(&counts.counted, requests);
            watch.mark();
        }
        count(&counts.counted, 4);
        watch.follow(Some(&b), Generation(2));
        assert_eq!(before(&watch), Some((&a, 7)));
    }
}
