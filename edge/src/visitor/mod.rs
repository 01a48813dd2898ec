//! Which release a visitor gets, where not all get the same.
//!
//! ```text
//!  x-helix-pin ──else──▶ cookie __helix_pin ──else──▶ a pin's own header or cookie ──else──▶ the draw ──else──▶ live
//! ```
//!
//! What somebody shows goes before what is drawn for them. Who shows nothing that is known is drawn for, and gets the draw
//! as a cookie; who keeps no cookies is drawn for each time. Invariant: of a release that this edge has not ready nobody is
//! sent anything, and of a site without weight and pins there is no [`Split`], so that its requests pay for none of this.

pub mod draw;
pub mod key;
pub mod private;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use helix_framing::Fields;
use helix_routing::id::SiteId;
use helix_routing::record::{Pin, PinBy};
use helix_service::{clock, pass};
use http::header::COOKIE;
use http::{HeaderName, HeaderValue, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use self::draw::{DRAWS, For, Key};
use crate::answer::{Pinned, RequestHead};
use crate::counted::Counted;
use crate::release::Release;
use crate::table::Serving;
use crate::tally::Tally;

/// The header by which a visitor shows a pin's label, a release's id, `candidate` or `live`.
pub const PIN_HEADER: HeaderName = HeaderName::from_static("x-helix-pin");
/// The cookie by which a visitor shows the same.
const PIN_COOKIE: &str = "__helix_pin";
/// Cookies of one name that are looked at: a browser sends one, but for those that a host above set.
const MAX_COOKIES: usize = 4;

/// What visitors of a site are parted by.
#[derive(Debug, Default)]
pub struct Split {
    /// A share of them gets another release.
    pub canary: Option<Canary>,
    /// Who shows this gets that.
    pub pins: Vec<(Pin, Arc<Release>)>,
}

impl Split {
    /// What some of the visitors get.
    pub(crate) fn releases(&self) -> impl Iterator<Item = &Arc<Release>> {
        let candidate = self.canary.iter().map(|canary| &canary.candidate);
        candidate.chain(self.pins.iter().map(|(_, release)| release))
    }
}

/// A candidate that a share of the visitors gets.
#[derive(Debug)]
pub struct Canary {
    /// The candidate.
    pub candidate: Arc<Release>,
    /// The share, in percent.
    pub weight: u8,
    /// Where its visitors' requests are counted.
    pub counted: Arc<Counted>,
}

/// What a visitor gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What is live, as most do.
    Live,
    /// The candidate, by the draw.
    Candidate,
    /// What they have shown.
    Pinned,
}

impl Side {
    /// As in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Candidate => "candidate",
            Self::Pinned => "pinned",
        }
    }
}

/// What was chosen for a visitor.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Which side.
    pub side: Side,
    /// Why, in a few words, for people.
    pub reason: &'static str,
    /// The cookie that they are to be sent.
    pub cookie: Option<HeaderValue>,
}

/// The fleet's keys, as an edge has them.
#[derive(Debug)]
pub struct Keys {
    /// What it signs with.
    pub signs: Key,
    /// What it accepts besides.
    pub also: Vec<Key>,
}

impl Keys {
    /// What a cookie says. One that this edge would sign otherwise by now is to be sent again.
    fn read(&self, of: For<'_>, now: u64, value: &[u8]) -> Option<draw::Known> {
        draw::read(&self.signs, of, now, value).or_else(|| {
            let mut also = self.also.iter();
            let known = also.find_map(|key| draw::read(key, of, now, value))?;
            Some(draw::Known {
                is_old: true,
                ..known
            })
        })
    }
}

/// What all requests of an edge draw with.
#[derive(Debug, Default)]
pub struct Visitors {
    keys: ArcSwapOption<Keys>,
    /// Draws with a seed, for tests; others come from the system.
    seeded: Option<Mutex<StdRng>>,
}

impl Visitors {
    /// Draws that are the same each time.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            keys: ArcSwapOption::empty(),
            seeded: Some(Mutex::new(StdRng::seed_from_u64(seed))),
        }
    }

    /// Signs with this key from now on, and accepts no other. Without any, every visitor gets what is live.
    pub fn sign_with(&self, key: Key) {
        self.use_keys(Keys {
            signs: key,
            also: Vec::new(),
        });
    }

    /// Signs with and accepts these from now on.
    pub fn use_keys(&self, keys: Keys) {
        self.keys.store(Some(Arc::new(keys)));
    }

    /// What passes of whatever has this half of a key are signed with, and what they are accepted by besides; none while the fleet's half is
    /// not known.
    pub(crate) fn pass_keys(&self, half: &str) -> Option<(pass::Key, Vec<pass::Key>)> {
        let keys = self.keys.load();
        let keys = keys.as_ref()?;
        let also = keys.also.iter().map(|key| key.for_passes(half));
        Some((keys.signs.for_passes(half), also.collect()))
    }

    fn draw(&self) -> u16 {
        match &self.seeded {
            Some(seeded) => {
                let mut seeded = seeded.lock().unwrap_or_else(PoisonError::into_inner);
                seeded.random_range(0..DRAWS)
            }
            None => rand::rng().random_range(0..DRAWS),
        }
    }
}

/// What the visitor who sent `head` gets of what the site serves.
#[must_use]
pub(crate) fn choose(
    visitors: &Visitors,
    site: &SiteId,
    (serving, split): (&Serving, &Split),
    head: &RequestHead<'_>,
) -> (Option<Arc<Release>>, Chosen) {
    if let Some((release, reason)) = shown(serving, split, head) {
        let chosen = Chosen {
            side: Side::Pinned,
            reason,
            cookie: None,
        };
        return (release, chosen);
    }
    let Some(canary) = &split.canary else {
        return live(serving, "no pin is shown", None);
    };
    if canary.weight == 0 {
        return live(serving, "nobody is drawn yet", None);
    }
    let Some(keys) = visitors.keys.load_full() else {
        return live(serving, "this edge has no key to sign draws with", None);
    };
    drawn(visitors, &keys, site, (serving, canary), head)
}

fn live(
    serving: &Serving,
    reason: &'static str,
    cookie: Option<HeaderValue>,
) -> (Option<Arc<Release>>, Chosen) {
    let chosen = Chosen {
        side: Side::Live,
        reason,
        cookie,
    };
    (serving.live.clone(), chosen)
}

/// By what the cookie says was drawn, else by a new draw.
fn drawn(
    visitors: &Visitors,
    keys: &Keys,
    site: &SiteId,
    (serving, canary): (&Serving, &Canary),
    head: &RequestHead<'_>,
) -> (Option<Arc<Release>>, Chosen) {
    let of = For {
        site,
        candidate: &canary.candidate.id,
    };
    let now = clock::now().as_millis() / 1000;
    let held = cookies(head.fields, draw::NAME)
        .take(MAX_COOKIES)
        .find_map(|value| keys.read(of, now, value));
    let (draw, is_known, sends) = match held {
        Some(known) => (known.draw, true, known.is_old),
        None => (visitors.draw(), false, true),
    };
    let cookie = sends.then(|| draw::field(&draw::write(&keys.signs, of, now, draw), head.secure));
    if !draw::is_in(draw, canary.weight) {
        let reason = if is_known {
            "live by the visitor's cookie"
        } else {
            "live by a new draw"
        };
        return live(serving, reason, cookie);
    }
    let chosen = Chosen {
        side: Side::Candidate,
        reason: if is_known {
            "candidate by the visitor's cookie"
        } else {
            "candidate by a new draw"
        },
        cookie,
    };
    (Some(Arc::clone(&canary.candidate)), chosen)
}

/// The release that the visitor has shown something for. What is not known, or not ready here, was not shown.
fn shown(
    serving: &Serving,
    split: &Split,
    head: &RequestHead<'_>,
) -> Option<(Option<Arc<Release>>, &'static str)> {
    let named = |value: &[u8]| named(serving, split, value);
    // Asked first: a field without a number keeps the answer from being remembered for others.
    if let Some(release) = head.fields.first(&PIN_HEADER).and_then(named) {
        return Some((release, "pinned by x-helix-pin"));
    }
    let mut values = cookies(head.fields, PIN_COOKIE).take(MAX_COOKIES);
    if let Some(release) = values.find_map(named) {
        return Some((release, "pinned by the cookie __helix_pin"));
    }
    let (_, release) = split
        .pins
        .iter()
        .find(|(pin, _)| is_shown(&pin.by, head.fields))?;
    Some((Some(Arc::clone(release)), "pinned by what the pin names"))
}

fn named(serving: &Serving, split: &Split, value: &[u8]) -> Option<Option<Arc<Release>>> {
    match value {
        b"live" => return Some(serving.live.clone()),
        b"candidate" => {
            let canary = split.canary.as_ref()?;
            return Some(Some(Arc::clone(&canary.candidate)));
        }
        _ => {}
    }
    let is_pin = |(pin, _): &&(Pin, Arc<Release>)| pin.label.as_str().as_bytes() == value;
    if let Some((_, release)) = split.pins.iter().find(is_pin) {
        return Some(Some(Arc::clone(release)));
    }
    let id = std::str::from_utf8(value).ok()?.parse().ok()?;
    serving
        .release(&id)
        .map(|release| Some(Arc::clone(release)))
}

fn is_shown(by: &PinBy, fields: Fields<'_>) -> bool {
    match by {
        PinBy::Label => false,
        PinBy::Header(shown) => HeaderName::from_bytes(shown.name().as_bytes()).is_ok_and(|name| {
            let mut values = fields.all(&name);
            values.any(|value| value == shown.value().as_bytes())
        }),
        PinBy::Cookie(shown) => cookies(fields, shown.name())
            .take(MAX_COOKIES)
            .any(|value| value == shown.value().as_bytes()),
    }
}

/// The values of a cookie, in the order in which they were sent (RFC 6265 5.4). Quotes are part of a value.
pub(crate) fn cookies<'a>(fields: Fields<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = fields
        .all(&COOKIE)
        .flat_map(|field| field.split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    })
}

/// Counts a finished request where it belongs: on its side, where there are sides, and of the release that answered.
pub(crate) fn finished(
    tally: &Tally,
    pinned: &Pinned,
    status: Option<StatusCode>,
    took: Option<Duration>,
) {
    if let Some(side) = pinned.side() {
        tally.sides[side as usize].add(1);
    }
    if let Some(counted) = pinned.counted() {
        counted.finished(tally.core, status, took);
    }
}

#[cfg(test)]
#[path = "visitor_tests.rs"]
mod tests;
