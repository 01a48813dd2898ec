//! What stands in after a restart for a release that is not here, against tables and random histories.

use std::collections::BTreeSet;

use helix_routing::rollout::KEEP_PREVIOUS;
use proptest::prelude::*;

use super::*;

/// The edge starts again with what is `here` of the releases that its record names.
fn started(record: SiteRecord, here: &[u8]) -> (Placement, Plan) {
    let mut site = Placement::default();
    let mut plan = Plan::default();
    let named: BTreeSet<ReleaseRef> = record.releases().cloned().collect();
    let mut commands = site.step(recorded(record));
    for named in named {
        let is_here = here.iter().any(|here| release(*here) == named);
        let event = if is_here { Event::Ready } else { Event::Absent };
        commands.extend(site.step(event(named)));
    }
    if let Some(served) = served(&commands) {
        plan = served.clone();
    }
    (site, plan)
}

#[test]
fn after_a_restart_what_was_live_before_stands_in_for_what_is_fetched() {
    let new = SiteRecord {
        live_since: Generation(6),
        ..record(7, Some(3), None, &[2, 1])
    };
    for (here, stands_in) in [
        (&[1, 2, 3][..], Some((7, 3))),
        (&[1, 2], Some((5, 2))),
        (&[1], Some((5, 1))),
        (&[], None),
    ] {
        let (mut site, plan) = started(new.clone(), here);
        let served = plan.live.map(|live| (plan.generation, live));
        let expected = stands_in.map(|(generation, live)| (Generation(generation), release(live)));
        assert_eq!(served, expected, "{here:?}");
        assert_eq!(site.is_settled(), here.contains(&3), "{here:?}");
        if !here.contains(&3) {
            site.step(Event::Ready(release(3)));
            assert!(site.is_settled());
        }
    }
}

#[test]
fn what_is_live_stands_in_for_the_release_of_an_override_that_was_lost() {
    let mut site = Placement::default();
    let new = record(7, Some(3), None, &[2, 1]);
    site.step(Event::Overridden(Box::new(overriding(release(1), &new))));
    let mut commands = site.step(recorded(new));
    for event in [
        Event::Absent(release(1)),
        Event::Ready(release(2)),
        Event::Ready(release(3)),
    ] {
        commands.extend(site.step(event));
    }
    let plan = served(&commands).unwrap();
    assert_eq!(
        (plan.generation, plan.live.clone()),
        (Generation(7), Some(release(3)))
    );
    let plan = site.step(Event::Ready(release(1)));
    assert_eq!(served(&plan).unwrap().live, Some(release(1)));
}

#[test]
fn what_was_never_here_stands_in_for_nothing() {
    let mut site = Placement::default();
    site.step(recorded(record(7, Some(3), None, &[2, 1])));
    for absent in [1, 2, 3] {
        site.step(Event::Absent(release(absent)));
    }
    // Fetched before what is live, which is large.
    let commands = site.step(Event::Ready(release(2)));
    assert_eq!(served(&commands).unwrap().live, None);
    let commands = site.step(Event::Ready(release(3)));
    assert_eq!(served(&commands).unwrap().live, Some(release(3)));
}

#[test]
fn nothing_stands_in_before_it_is_known_what_is_here() {
    let mut site = Placement::default();
    site.step(recorded(record(7, Some(3), None, &[2, 1])));
    // Of all that may be here the older one is found first.
    let live = |commands: &[Command]| served(commands).and_then(|plan| plan.live.clone());
    assert_eq!(live(&site.step(Event::Ready(release(1)))), None);
    assert_eq!(live(&site.step(Event::Absent(release(3)))), None);
    assert_eq!(live(&site.step(Event::Ready(release(2)))), Some(release(2)));
}

proptest! {
    /// Cutovers reach an edge or do not, what they name comes or does not, and it starts again at any time.
    #[test]
    fn restarts_take_nothing_away(
        steps in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), 0_u8..6), 1..40)
    ) {
        let mut newest = record(0, None, None, &[]);
        let mut held: Option<SiteRecord> = None;
        let mut here: BTreeSet<u8> = BTreeSet::new();
        let mut site = Placement::default();
        let mut plan = Plan::default();
        for (arrives, comes, restarts, next) in steps {
            newest.serve(release(next), KEEP_PREVIOUS);
            newest.generation = newest.generation.next();
            let mut commands = Vec::new();
            if arrives {
                held = Some(newest.clone());
                commands.extend(site.step(recorded(newest.clone())));
            }
            let Some(record) = &held else { continue };
            if restarts {
                site = Placement::default();
                commands = site.step(recorded(record.clone()));
            }
            let named: BTreeSet<ReleaseRef> = record.releases().cloned().collect();
            for n in (0..6).filter(|n| named.contains(&release(*n))) {
                let event = if here.contains(&n) { Event::Ready } else { Event::Absent };
                commands.extend(site.step(event(release(n))));
            }
            if comes && record.live == Some(release(next)) {
                here.insert(next);
                commands.extend(site.step(Event::Ready(release(next))));
            }
            for command in commands {
                if let Command::Serve(new) = command {
                    // While it starts, nothing is told to anybody yet.
                    if new.live.is_some() {
                        prop_assert!(new.generation >= plan.generation, "{:?} after {:?}", new, plan);
                        plan = new;
                    }
                }
            }
            let now = site.served().and_then(|served| served.live.clone());
            prop_assert!(now.is_some() || plan.live.is_none(), "nothing is served any more: {record:?}");
        }
    }
}
