//! Writes down when releases were last live, without haste, and lets what was live yesterday no longer answer.

use std::time::Duration;

use helix_service::clock;

use super::{Agent, Done};

/// After a site's releases changed, before it is written down when they did: a wave changes many sites at once.
const NOTE_DELAY: Duration = Duration::from_secs(1);

impl Agent {
    /// The clock went on: what was live yesterday no longer answers.
    pub(super) fn follow_retired(&mut self) {
        let now = clock::now();
        let places = self.places.iter_mut();
        let changed: Vec<_> = places
            .filter_map(|(site, place)| {
                let changed = place.follow_retired(now);
                let plan = place.placement.served().filter(|_| changed);
                Some((site.clone(), plan?.clone()))
            })
            .collect();
        // Answers may be remembered for as long as nothing is published.
        for (site, plan) in changed {
            self.serve(&site, &plan);
        }
    }

    pub(super) fn note_later(&mut self) {
        if !self.notes_are_due {
            self.notes_are_due = true;
            self.later(NOTE_DELAY, Done::NotesDue);
        }
    }

    /// Writes down when releases were last live, for the sites where that is news.
    pub(super) fn note(&mut self) {
        self.notes_are_due = false;
        if self.noting {
            self.note_later();
            return;
        }
        self.noting = true;
        let places = self.places.iter_mut();
        let notes: Vec<_> = places
            .filter_map(|(site, place)| {
                let due = std::mem::take(&mut place.note_is_due);
                due.then(|| (site.clone(), place.retired.clone()))
            })
            .collect();
        let (folder, done) = (self.retired.clone(), self.done.clone());
        tokio::task::spawn_blocking(move || {
            for (site, retired) in notes {
                if let Err(error) = retired.save(&folder, &site) {
                    tracing::warn!(site = %site, error = &error as &dyn std::error::Error, "when releases were last live is not written down");
                }
            }
            let _ = done.blocking_send(Done::Noted);
        });
    }
}
