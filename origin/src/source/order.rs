//! In which order commits came, though their deliveries come late, twice, and in any order. Pure.
//!
//! What is known of a site is its head and every commit that was one or was passed over. A delivery that goes on from the head is
//! taken; one whose commit was seen before is old; and one that goes on from something unknown tells of commits that were missed.

use helix_routing::id::Commit;

/// What is known of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its newest commit.
    pub head: Option<Commit>,
    /// Whether its pull request was closed.
    pub is_closed: bool,
    /// Whether the delivery's commit was a head before, or was passed over.
    pub was_seen: bool,
}

/// What to do with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Its commit is the newest now.
    Take,
    /// That is known already.
    Same,
    /// A newer one is known.
    Old,
    /// The pull request is over.
    Closed,
}

/// Whether a commit, which follows on `before` if that is said, is the newest.
#[must_use]
pub fn of(known: &Known, before: Option<&Commit>, after: &Commit) -> Order {
    if known.is_closed {
        return Order::Closed;
    }
    if known.head.as_ref() == Some(after) {
        return Order::Same;
    }
    // Back to a commit that was there before is a push like any other, if it says that it follows on the head.
    let follows = known.head.is_some() && known.head.as_ref() == before;
    if known.was_seen && !follows {
        return Order::Old;
    }
    Order::Take
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn commit(n: u8) -> Commit {
        format!("{n:040x}").parse().unwrap()
    }

    /// Takes deliveries one by one, as the intake does, and says where the head ends.
    fn run(deliveries: &[(u8, u8)]) -> (Option<Commit>, Vec<Order>) {
        let mut known = Known::default();
        let mut seen = BTreeSet::new();
        let mut orders = Vec::new();
        for (before, after) in deliveries {
            let (before, after) = (commit(*before), commit(*after));
            known.was_seen = seen.contains(&after);
            let order = of(&known, Some(&before), &after);
            if order == Order::Take {
                seen.extend([before, after.clone()]);
                known.head = Some(after);
            }
            orders.push(order);
        }
        (known.head, orders)
    }

    #[test]
    fn the_newest_commit_wins_however_its_deliveries_come() {
        use Order::{Old, Same, Take};
        for (deliveries, head, orders) in [
            (vec![(1, 2), (2, 3)], 3, vec![Take, Take]),
            (vec![(2, 3), (1, 2)], 3, vec![Take, Old]),
            (vec![(1, 2), (1, 2)], 2, vec![Take, Same]),
            (vec![(1, 2), (2, 3), (1, 2)], 3, vec![Take, Take, Old]),
            // Some were missed: what comes is newer than what is known.
            (vec![(1, 2), (4, 5)], 5, vec![Take, Take]),
            // Back, and forth again.
            (
                vec![(1, 2), (2, 3), (3, 2), (2, 3)],
                3,
                vec![Take, Take, Take, Take],
            ),
        ] {
            let (found, decided) = run(&deliveries);
            assert_eq!(
                (found, decided),
                (Some(commit(head)), orders),
                "{deliveries:?}"
            );
        }
    }

    #[test]
    fn what_is_closed_stays_closed() {
        let known = Known {
            is_closed: true,
            ..Known::default()
        };
        assert_eq!(of(&known, None, &commit(1)), Order::Closed);
    }
}
