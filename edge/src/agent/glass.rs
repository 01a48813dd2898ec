//! Overrides of this edge: asked for at the local socket, on disk before they count, told to origin when it can be.
//!
//! ```text
//!  asked for ──decided (routing)──▶ written ──▶ served ──▶ reported
//!                                                  │ ended by a person, or replaced by a later cutover
//!                                                  ▼
//!                                               the record counts again
//! ```
//!
//! One file holds all of them. What it says of a site that has cut over since is void, so a write that comes late harms nothing.
//! What is over is in a file of its own, written before: origin has to hear of it also when it heard of nothing while it stood.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use helix_routing::glass::{
    Cause, EndedOverride, EndedOverrides, Held, LocalOverride, NewOverride, Overrides, Refused,
    decide,
};
use helix_routing::id::{Generation, SiteId};
use helix_routing::record::{Override, ReleaseRef, SiteRecord};
use helix_routing::wire::Wire;
use helix_service::{clock, digest, disk, failpoint};
use tokio::sync::{mpsc, oneshot};

use super::placement::Event;
use super::{Agent, Done};

/// Wishes that wait; they are people's.
const MAX_WAITING_ASKS: usize = 16;
/// Characters of the digest in front of the file's bytes.
const DIGEST_BYTES: usize = 64;

/// What somebody wants of this edge alone.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Another release than the record's is to be served.
    Override(NewOverride),
    /// The record is to count again.
    End {
        /// The site.
        site: SiteId,
    },
}

/// Nothing came of a wish.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Denied {
    /// It may not be.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It is not on disk, so it does not count.
    #[error("write {path}: {reason}")]
    Write {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Nobody follows records here at the moment.
    #[error("this process hands over to another one; ask again")]
    Busy,
}

type Reply = oneshot::Sender<Result<Option<LocalOverride>, Denied>>;

/// A wish, and who waits for what comes of it.
#[derive(Debug)]
pub(super) struct Ask {
    wish: Wish,
    reply: Reply,
}

/// Where wishes are handed in and overrides are looked up. It outlives the agents of its process.
#[derive(Debug, Default)]
pub struct Desk(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    asks: Option<mpsc::Sender<Ask>>,
    standing: BTreeMap<SiteId, LocalOverride>,
    /// Those of a whole region, as records say them.
    signed: BTreeMap<SiteId, Override>,
}

impl Desk {
    /// Hands a wish in and waits for what comes of it: the override that stands then.
    ///
    /// # Errors
    /// Says why nothing came of it.
    pub async fn ask(&self, wish: Wish) -> Result<Option<LocalOverride>, Denied> {
        let (reply, replied) = oneshot::channel();
        let asks = self.shown().asks.clone().ok_or(Denied::Busy)?;
        let asked = asks.send(Ask { wish, reply }).await;
        asked.map_err(|_| Denied::Busy)?;
        replied.await.map_err(|_| Denied::Busy)?
    }

    /// The overrides that stand, by site.
    #[must_use]
    pub fn standing(&self) -> BTreeMap<SiteId, LocalOverride> {
        self.shown().standing.clone()
    }

    /// The overrides of the region that stand, by site.
    #[must_use]
    pub fn signed(&self) -> BTreeMap<SiteId, Override> {
        self.shown().signed.clone()
    }

    fn show_signed(&self, record: &SiteRecord) {
        let mut shown = self.shown();
        match record.overridden.as_deref().filter(|_| !record.removed) {
            Some(terms) => shown.signed.insert(record.site.clone(), terms.clone()),
            None => shown.signed.remove(&record.site),
        };
    }

    fn show(&self, site: &SiteId, standing: Option<LocalOverride>) {
        let mut shown = self.shown();
        match standing {
            Some(standing) => shown.standing.insert(site.clone(), standing),
            None => shown.standing.remove(site),
        };
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the agent knows of overrides.
#[derive(Debug)]
pub(super) struct Glass {
    desk: Arc<Desk>,
    asks: mpsc::Receiver<Ask>,
    files: Files,
    held: Overrides,
    ended: EndedOverrides,
    /// A file is being written: what comes next waits, so that it is decided on what is on disk.
    writing: bool,
}

/// Where they are kept.
#[derive(Clone, Debug)]
struct Files {
    standing: PathBuf,
    ended: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        Self {
            standing: folder.join("overrides"),
            ended: folder.join("overrides-ended"),
        }
    }

    fn write(&self, held: &Overrides, ended: Option<&EndedOverrides>) -> Result<(), Denied> {
        if let Some(ended) = ended {
            keep_in(&self.ended, ended)?;
        }
        keep_in(&self.standing, held)
    }
}

/// What comes of a write.
#[derive(Debug)]
pub(super) struct Kept {
    site: SiteId,
    next: Option<LocalOverride>,
    held: Overrides,
    over: Option<EndedOverride>,
    reply: Option<Reply>,
    written: Result<(), Denied>,
}

impl Glass {
    /// What the files in `folder` hold. From now on wishes come here.
    pub(super) fn open(desk: Arc<Desk>, folder: &Path) -> Self {
        let (sender, asks) = mpsc::channel(MAX_WAITING_ASKS);
        let files = Files::of(folder);
        let held: Overrides = opened(&files.standing);
        let mut ended: EndedOverrides = opened(&files.ended);
        // Ended only on paper: the process ended between the two writes.
        ended
            .overrides
            .retain(|over| !held.standing.contains(&over.local));
        let mut shown = desk.shown();
        shown.asks = Some(sender);
        shown.standing.clear();
        drop(shown);
        Self {
            desk,
            asks,
            files,
            held,
            ended,
            writing: false,
        }
    }

    /// The next wish, once the one before is on disk.
    pub(super) async fn next(&mut self) -> Option<Ask> {
        if self.writing {
            std::future::pending().await
        } else {
            self.asks.recv().await
        }
    }

    pub(super) const fn is_writing(&self) -> bool {
        self.writing
    }

    /// Whether this edge has taken itself back since that cutover of `site`.
    pub(super) fn is_spent(&self, site: &SiteId, live_since: Generation) -> bool {
        self.held
            .guarded
            .get(site)
            .is_some_and(|guarded| *guarded >= live_since)
    }

    fn with(&self, site: &SiteId, next: Option<&LocalOverride>) -> Overrides {
        let mut held = self.held.clone();
        held.standing.retain(|standing| standing.site != *site);
        held.standing.extend(next.cloned());
        held
    }

    /// What is over once nothing, or something else, stands for `site`; none when nothing ends by that.
    fn ending(&self, site: &SiteId) -> Option<EndedOverride> {
        let mut standing = self.held.standing.iter();
        let local = standing.find(|standing| standing.site == *site)?;
        Some(EndedOverride {
            local: local.clone(),
            ended: clock::now(),
        })
    }
}

impl Agent {
    /// Lets what is on disk count again. To be called before records are.
    pub fn restore_overrides(&mut self) {
        self.reports.ended(self.glass.ended.clone());
        for local in self.glass.held.standing.clone() {
            tracing::warn!(site = %local.site, release.id = %local.release.release, by = local.by, reason = local.reason, "an override of this edge stands");
            self.glass.desk.show(&local.site, Some(local.clone()));
            let site = local.site.clone();
            self.reports.overridden(&site, Some(local.clone()));
            self.step(&site, Event::Overridden(Box::new(local)));
        }
    }

    /// A record came: it may be an operator's override of the region, or end one.
    pub(super) fn note_signed(&self, record: &SiteRecord) {
        self.glass.desk.show_signed(record);
        let until = record.overridden.as_ref().map(|terms| terms.until);
        self.reports.signed(&record.site, until);
    }

    /// Somebody wants something.
    pub(super) fn asked(&mut self, Ask { wish, reply }: Ask) {
        let decided = match &wish {
            Wish::Override(new) => self.decide(new, Cause::Operator).map(Some),
            Wish::End { site } => match self.standing(site) {
                Some(_) => Ok(None),
                None => Err(Refused::NoneStands),
            },
        };
        let site = match wish {
            Wish::Override(new) => new.site,
            Wish::End { site } => site,
        };
        match decided {
            Ok(next) => {
                let held = self.glass.with(&site, next.as_ref());
                self.keep(site, next, held, Some(reply));
            }
            Err(refused) => {
                tracing::warn!(%site, reason = %refused, "an override is refused");
                // Whoever asked may have left.
                let _ = reply.send(Err(refused.into()));
            }
        }
    }

    fn standing(&self, site: &SiteId) -> Option<&LocalOverride> {
        self.places.get(site)?.placement.local()
    }

    pub(super) fn decide(
        &self,
        wish: &NewOverride,
        cause: Cause,
    ) -> Result<LocalOverride, Refused> {
        let place = self.places.get(&wish.site);
        let ready: Vec<ReleaseRef> = place
            .iter()
            .flat_map(|place| place.ready.keys().cloned())
            .collect();
        let held = place.and_then(|place| {
            Some(Held {
                record: place.placement.record()?,
                ready: &ready,
                served: place.placement.served().and_then(|plan| plan.live.as_ref()),
            })
        });
        decide(held, wish, cause, clock::now())
    }

    /// Writes that the guard has acted on `site` since its last cutover, whether anything came of it or not.
    pub(super) fn keep_guarded(&mut self, site: SiteId, next: Option<LocalOverride>) {
        let place = self.places.get(&site);
        let record = place.and_then(|place| place.placement.record());
        let live_since = record.map_or_else(Generation::default, |record| record.live_since);
        let mut held = self.glass.with(&site, next.as_ref());
        // Sites that are gone need no mark.
        held.guarded
            .retain(|site, _| self.places.contains_key(site));
        held.guarded.insert(site.clone(), live_since);
        self.keep(site, next, held, None);
    }

    /// Writes what is to hold, and comes back with it.
    fn keep(
        &mut self,
        site: SiteId,
        next: Option<LocalOverride>,
        held: Overrides,
        reply: Option<Reply>,
    ) {
        self.glass.writing = true;
        let over = self.glass.ending(&site);
        let ended = over.clone().map(|over| {
            let mut ended = self.glass.ended.clone();
            ended.add(over);
            ended
        });
        let (files, done) = (self.glass.files.clone(), self.done.clone());
        tokio::task::spawn_blocking(move || {
            let written = files.write(&held, ended.as_ref());
            failpoint::hit("edge.override.persisted");
            let kept = Kept {
                site,
                next,
                held,
                over,
                reply,
                written,
            };
            // The agent ends only with the process.
            let _ = done.blocking_send(Done::Kept(Box::new(kept)));
        });
    }

    /// It is on disk, or is not.
    pub(super) fn kept(&mut self, kept: Kept) {
        let Kept {
            site,
            next,
            held,
            over,
            reply,
            written,
        } = kept;
        self.glass.writing = false;
        let answer = written.map(|()| next.clone());
        match &answer {
            Ok(_) => {
                self.note_over(over);
                self.holds_now(&site, next, held);
            }
            Err(denied) => {
                tracing::error!(%site, reason = %denied, "an override does not count");
            }
        }
        if let Some(reply) = reply {
            // Whoever asked may have left.
            let _ = reply.send(answer);
        }
    }

    fn note_over(&mut self, over: Option<EndedOverride>) {
        if let Some(over) = over {
            self.glass.ended.add(over);
            self.reports.ended(self.glass.ended.clone());
        }
    }

    fn holds_now(&mut self, site: &SiteId, next: Option<LocalOverride>, held: Overrides) {
        self.glass.held = held;
        self.glass.desk.show(site, next.clone());
        self.reports.overridden(site, next.clone());
        say(site, next.as_ref());
        let event = next.map_or(Event::OverrideEnded, |local| {
            Event::Overridden(Box::new(local))
        });
        self.step(site, event);
    }

    /// A later cutover replaced an override. The file may say so later: a restart would come to the same.
    pub(super) fn overruled(&mut self, site: &SiteId, local: &LocalOverride) {
        tracing::warn!(%site, release.id = %local.release.release, reason = local.reason, from = "overridden", to = "as recorded", "a later cutover replaces the override");
        let over = self.glass.ending(site);
        self.note_over(over);
        self.glass.held = self.glass.with(site, None);
        self.glass.desk.show(site, None);
        self.reports.overridden(site, None);
    }
}

fn say(site: &SiteId, next: Option<&LocalOverride>) {
    match next {
        Some(local) => {
            let left = local.left.as_ref().map(|left| &left.release);
            tracing::warn!(%site, from = ?left, to = %local.release.release, by = local.by, reason = local.reason, cause = ?local.cause, "override");
        }
        None => tracing::warn!(%site, from = "overridden", to = "as recorded", "override"),
    }
}

fn opened<T: Wire + Default>(file: &Path) -> T {
    load(file).unwrap_or_else(|error| {
        tracing::error!(file = %file.display(), error = &error as &dyn std::error::Error, "overrides of this edge are lost");
        T::default()
    })
}

fn keep_in(file: &Path, value: &impl Wire) -> Result<(), Denied> {
    save(file, value).map_err(|error| Denied::Write {
        path: file.display().to_string(),
        reason: error.source.to_string(),
    })
}

fn load<T: Wire + Default>(file: &Path) -> io::Result<T> {
    let bytes = match std::fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        read => read?,
    };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its checksum does not fit");
    let (sum, body) = bytes.split_at_checked(DIGEST_BYTES).ok_or_else(damaged)?;
    if digest::sha256(body).hex().as_bytes() != sum {
        return Err(damaged());
    }
    T::decode(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn save(file: &Path, value: &impl Wire) -> Result<(), disk::WriteError> {
    let body = value.encode();
    let mut bytes = digest::sha256(&body).hex().as_bytes().to_vec();
    bytes.extend_from_slice(&body);
    disk::write_secret(file, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("overrides");
        assert_eq!(load::<Overrides>(&file).unwrap(), Overrides::default());
        let release = |digit: &str| ReleaseRef {
            release: digit.repeat(20).parse().unwrap(),
            artifact: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
        };
        let mut held = Overrides::default();
        held.standing.push(LocalOverride {
            site: "shop/production".parse().unwrap(),
            release: release("a"),
            left: Some(release("b")),
            base: Generation(7),
            cause: Cause::Operator,
            reason: "sick".to_owned(),
            by: "ada".to_owned(),
            since: clock::now(),
            until: clock::now(),
        });
        save(&file, &held).unwrap();
        assert_eq!(load::<Overrides>(&file).unwrap(), held);
        let mut bytes = std::fs::read(&file).unwrap();
        for at in [0, DIGEST_BYTES, bytes.len() - 1] {
            bytes[at] ^= 1;
            std::fs::write(&file, &bytes).unwrap();
            assert!(load::<Overrides>(&file).is_err(), "byte {at}");
            bytes[at] ^= 1;
        }
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert!(load::<Overrides>(&file).is_err());
    }
}
