//! Which routes of a phase may be for a path, without running any pattern.
//!
//! Pure. Every path that a route fits starts with one of a few texts, mostly; those lie sorted, and each knows the
//! longest other one that it starts with. So all that start a path are found by one search and a walk.

use alloc::vec::Vec;

use super::matcher::Literals;

/// Routes by what paths for them start with.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// In order.
    prefixes: Vec<Prefix>,
    /// Routes whose paths start with anything.
    wild: Vec<Wild>,
}

#[derive(Debug)]
struct Prefix {
    text: Vec<u8>,
    /// The longest other one that this one starts with.
    parent: Option<usize>,
    /// Numbers of routes, in order.
    routes: Vec<usize>,
}

#[derive(Debug)]
struct Wild {
    route: usize,
    /// What paths for it end with; anything, if there is none.
    suffixes: Vec<Vec<u8>>,
}

impl Index {
    /// An index of routes, each with its number.
    pub(super) fn new(routes: impl Iterator<Item = (usize, Literals)>) -> Self {
        let mut index = Self::default();
        let mut all: Vec<(Vec<u8>, usize)> = Vec::new();
        for (route, literals) in routes {
            if literals.prefixes.is_empty() || literals.prefixes.iter().any(|text| text == b"/") {
                let suffixes = literals.suffixes;
                index.wild.push(Wild { route, suffixes });
            } else {
                all.extend(literals.prefixes.into_iter().map(|text| (text, route)));
            }
        }
        all.sort();
        all.dedup();
        for (text, route) in all {
            match index.prefixes.last_mut().filter(|last| last.text == text) {
                Some(last) => last.routes.push(route),
                None => {
                    let parent = index.parent_of(&text);
                    index.prefixes.push(Prefix {
                        text,
                        parent,
                        routes: Vec::from([route]),
                    });
                }
            }
        }
        index
    }

    /// Of what is there, which sorts before `text`.
    fn parent_of(&self, text: &[u8]) -> Option<usize> {
        let mut at = self.prefixes.len().checked_sub(1);
        while let Some(candidate) = at.and_then(|at| self.prefixes.get(at)) {
            if text.starts_with(&candidate.text) {
                return at;
            }
            at = candidate.parent;
        }
        None
    }

    /// Whether there is no route.
    pub(super) fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.wild.is_empty()
    }

    /// Puts the numbers of all routes that may be for `path`, in lower case, into `found`, in order.
    pub(super) fn candidates(&self, path: &[u8], found: &mut Vec<usize>) {
        found.clear();
        let after = self
            .prefixes
            .partition_point(|prefix| *prefix.text <= *path);
        let mut at = after.checked_sub(1);
        while let Some(prefix) = at.and_then(|at| self.prefixes.get(at)) {
            if path.starts_with(&prefix.text) {
                found.extend_from_slice(&prefix.routes);
            }
            at = prefix.parent;
        }
        let wild = self.wild.iter().filter(|wild| {
            wild.suffixes.is_empty() || wild.suffixes.iter().any(|end| path.ends_with(end))
        });
        found.extend(wild.map(|wild| wild.route));
        found.sort_unstable();
        found.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    fn literals(prefixes: &[String], suffixes: &[String]) -> Literals {
        let bytes = |all: &[String]| all.iter().map(|one| one.clone().into_bytes()).collect();
        Literals {
            prefixes: bytes(prefixes),
            suffixes: bytes(suffixes),
        }
    }

    proptest! {
        #[test]
        fn every_route_that_may_fit_is_found_in_order(
            routes in prop::collection::vec(
                (prop::collection::vec("/[ab/]{0,4}", 0..3), prop::collection::vec("[ab]{1,2}", 0..2)), 0..20),
            path in "/[ab/]{0,6}",
        ) {
            let all = routes.iter().map(|(prefixes, suffixes)| literals(prefixes, suffixes));
            let index = Index::new(all.enumerate());
            let mut found = Vec::new();
            index.candidates(path.as_bytes(), &mut found);
            prop_assert!(found.is_sorted());
            for (at, (prefixes, suffixes)) in routes.iter().enumerate() {
                let starts = prefixes.is_empty() || prefixes.iter().any(|one| path.starts_with(one));
                let ends = suffixes.is_empty() || suffixes.iter().any(|one| path.ends_with(one));
                let there = found.contains(&at);
                // What ends a path is asked only where nothing is known of how it starts.
                prop_assert!(there || !(starts && ends), "{at} is missing");
                prop_assert!(!there || starts || prefixes.iter().any(|one| one == "/"), "{at} does not start so");
            }
        }
    }
}
