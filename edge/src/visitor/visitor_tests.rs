use bytes::Bytes;
use helix_routing::id::{Digest, Generation};
use helix_routing::record::ReleaseRef;
use http::{HeaderMap, Method};

use super::*;

const LIVE: char = 'a';
const CANDIDATE: char = 'b';
const PINNED: char = 'c';
const SEED: u64 = 20_261_128;

fn release(digit: char) -> Arc<Release> {
    let id = String::from(digit).repeat(20).parse().unwrap();
    let digest = Digest::from_hex(&"0".repeat(64)).unwrap();
    let files = [("index.html", "text/html", Bytes::from_static(b"x"))];
    Arc::new(Release::from_memory(id, digest, files))
}

fn pin(label: &str, by: PinBy) -> (Pin, Arc<Release>) {
    let release = release(PINNED);
    let named = ReleaseRef {
        release: release.id.clone(),
        artifact: Digest::from_hex(&"0".repeat(64)).unwrap(),
    };
    let label = label.parse().unwrap();
    let pin = Pin {
        label,
        by,
        release: named,
    };
    (pin, release)
}

/// A site of which so many percent get the candidate, on one edge.
struct Asked {
    visitors: Visitors,
    serving: Serving,
    site: SiteId,
}

impl Asked {
    fn new(weight: Option<u8>, pins: Vec<(Pin, Arc<Release>)>) -> Self {
        let visitors = Visitors::seeded(SEED);
        visitors.sign_with(Key::new(&[7; 32]));
        let canary = weight.map(|weight| Canary {
            candidate: release(CANDIDATE),
            weight,
            counted: Arc::default(),
        });
        let kept = vec![release(CANDIDATE), release(PINNED), release('d')];
        let mut serving = Serving::new(Generation(3), Some(release(LIVE)), kept);
        serving.split = Some(Box::new(Split { canary, pins }));
        Self {
            visitors,
            serving,
            site: "shop/production".parse().unwrap(),
        }
    }

    fn choose(&self, fields: &[(&'static str, &str)]) -> (char, Chosen) {
        let headers: HeaderMap = fields
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(value).unwrap();
                (HeaderName::from_static(name), value)
            })
            .collect();
        let head = RequestHead {
            method: &Method::GET,
            authority: "shop.example",
            path: "/",
            query: None,
            fields: Fields::Map(&headers),
            secure: true,
        };
        let split = self.serving.split.as_ref().unwrap();
        let (release, chosen) = choose(&self.visitors, &self.site, (&self.serving, split), &head);
        (release.unwrap().id.as_str().chars().next().unwrap(), chosen)
    }

    /// A new visitor: what they get, and the cookie they keep.
    fn visitor(&self) -> (char, String) {
        let (got, chosen) = self.choose(&[]);
        let cookie = chosen.cookie.unwrap();
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        (got, pair.to_owned())
    }
}

#[test]
fn the_share_of_new_visitors_is_the_weight() {
    const VISITORS: u32 = 20_000;
    for weight in [1_u8, 5, 20, 50, 99] {
        let asked = Asked::new(Some(weight), Vec::new());
        let got = (0..VISITORS).filter(|_| asked.visitor().0 == CANDIDATE);
        let share = f64::from(u32::try_from(got.count()).unwrap()) / f64::from(VISITORS);
        let wanted = f64::from(weight) / 100.0;
        // Five standard deviations.
        let beyond = 5.0 * (wanted * (1.0 - wanted) / f64::from(VISITORS)).sqrt();
        assert!(
            (share - wanted).abs() < beyond,
            "{weight}%: {share}, seed {SEED}"
        );
    }
}

#[test]
fn a_visitor_stays_on_a_side_on_every_edge_and_never_goes_back_as_the_weight_rises() {
    let weights = [5, 5, 25, 60, 100];
    let edges = weights.map(|weight| Asked::new(Some(weight), Vec::new()));
    let visitors: Vec<_> = (0..500).map(|_| edges[0].visitor()).collect();
    let mut had: Vec<bool> = visitors.iter().map(|(got, _)| *got == CANDIDATE).collect();
    assert!(had.contains(&true) && had.contains(&false));
    for (at, edge) in edges.iter().enumerate() {
        for ((_, cookie), had) in visitors.iter().zip(&mut had) {
            let (got, chosen) = edge.choose(&[("cookie", cookie)]);
            assert!(chosen.cookie.is_none(), "it is known");
            let gets = got == CANDIDATE;
            assert!(gets || !*had, "back to live at weight {}", weights[at]);
            if at < 2 {
                assert_eq!(gets, *had, "another side on another edge");
            }
            *had = gets;
        }
    }
    assert!(had.iter().all(|had| *had));
}

#[test]
fn cookies_that_are_not_this_sites_and_candidates_are_drawn_for_anew() {
    let asked = Asked::new(Some(50), Vec::new());
    let (_, good) = asked.visitor();
    let other_site = Asked {
        site: "other/production".parse().unwrap(),
        ..Asked::new(Some(50), Vec::new())
    };
    let other_key = Asked::new(Some(50), Vec::new());
    other_key.visitors.sign_with(Key::new(&[8; 32]));
    let value = good.split_once('=').unwrap().1;
    for (cookie, is_known) in [
        (good.clone(), true),
        (format!("a=b; {good}; c=d"), true),
        (format!("a=b;{good}"), true),
        (format!("__helix_draw=1.1.9999999999.x; {good}"), true),
        (other_site.visitor().1, false),
        (other_key.visitor().1, false),
        (format!("__helix_draw=\"{value}\""), false),
        (format!("x__helix_draw={value}"), false),
        (format!("__helix_draw2={value}"), false),
        (format!("__HELIX_DRAW={value}"), false),
        ("__helix_draw".to_owned(), false),
        ("__helix_draw=".to_owned(), false),
        (";;;=;".to_owned(), false),
    ] {
        let (_, chosen) = asked.choose(&[("cookie", &cookie)]);
        assert_eq!(chosen.cookie.is_none(), is_known, "{cookie}");
    }
    let far = "__helix_draw=x; ".repeat(MAX_COOKIES);
    let (_, chosen) = asked.choose(&[("cookie", &format!("{far}{good}"))]);
    assert!(chosen.cookie.is_some(), "so many are not looked at");
}

#[test]
fn visitors_keep_their_draw_through_a_change_of_the_key() {
    let (old, new) = ([7; 32], [8; 32]);
    let asked = Asked::new(Some(50), Vec::new());
    let keys = |signs: &[u8], also: &[u8]| Keys {
        signs: Key::new(signs),
        also: vec![Key::new(also)],
    };
    let (had, cookie) = asked.visitor();
    // Announced: another edge may sign with it already.
    asked.visitors.use_keys(keys(&old, &new));
    let (release, chosen) = asked.choose(&[("cookie", &cookie)]);
    assert_eq!((release, chosen.cookie.is_none()), (had, true));
    asked.visitors.use_keys(keys(&new, &old));
    let (release, chosen) = asked.choose(&[("cookie", &cookie)]);
    assert_eq!(release, had, "on the same side");
    let anew = chosen.cookie.expect("signed anew");
    let anew = anew.to_str().unwrap().split(';').next().unwrap().to_owned();
    assert_ne!(anew, cookie);
    // The one before is forgotten: what was signed anew is known, what was not is drawn for.
    asked.visitors.sign_with(Key::new(&new));
    let (release, chosen) = asked.choose(&[("cookie", &anew)]);
    assert_eq!((release, chosen.cookie.is_none()), (had, true));
    assert!(asked.choose(&[("cookie", &cookie)]).1.cookie.is_some());
}

#[test]
fn what_is_shown_goes_before_what_is_drawn() {
    let pins = vec![
        pin("beta", PinBy::Label),
        pin("team", PinBy::header("X-Team", "internal").unwrap()),
        pin("old", PinBy::cookie("shop", "old").unwrap()),
    ];
    let asked = Asked::new(Some(0), pins);
    let id = |digit: char| String::from(digit).repeat(20);
    let (kept, unknown) = (id('d'), id('f'));
    for (fields, expected, side) in [
        (&[][..], LIVE, Side::Live),
        (&[("x-helix-pin", "beta")], PINNED, Side::Pinned),
        (&[("x-helix-pin", "candidate")], CANDIDATE, Side::Pinned),
        (&[("x-helix-pin", "live")], LIVE, Side::Pinned),
        (&[("x-helix-pin", &kept)], 'd', Side::Pinned),
        (&[("x-helix-pin", &unknown)], LIVE, Side::Live),
        (&[("x-helix-pin", "unknown")], LIVE, Side::Live),
        (&[("x-helix-pin", "")], LIVE, Side::Live),
        (&[("cookie", "a=b; __helix_pin=beta")], PINNED, Side::Pinned),
        (&[("cookie", "__helix_pin=nobody")], LIVE, Side::Live),
        (
            &[("x-helix-pin", "live"), ("cookie", "__helix_pin=beta")],
            LIVE,
            Side::Pinned,
        ),
        (
            &[("x-helix-pin", "nobody"), ("cookie", "__helix_pin=beta")],
            PINNED,
            Side::Pinned,
        ),
        (&[("x-team", "internal")], PINNED, Side::Pinned),
        (&[("x-team", "Internal")], LIVE, Side::Live),
        (&[("x-team", "internal2")], LIVE, Side::Live),
        (&[("cookie", "shop=old")], PINNED, Side::Pinned),
        (&[("cookie", "shop=older")], LIVE, Side::Live),
        (&[("shop", "old")], LIVE, Side::Live),
    ] {
        let (got, chosen) = asked.choose(fields);
        assert_eq!((got, chosen.side), (expected, side), "{fields:?}");
        assert!(chosen.cookie.is_none(), "{fields:?}");
    }
}

#[test]
fn without_a_candidate_or_a_key_nobody_is_drawn_for() {
    let pinned_only = Asked::new(None, vec![pin("beta", PinBy::Label)]);
    let (got, chosen) = pinned_only.choose(&[("x-helix-pin", "candidate")]);
    assert_eq!((got, chosen.side), (LIVE, Side::Live));
    assert!(chosen.cookie.is_none());
    let keyless = Asked {
        visitors: Visitors::seeded(SEED),
        ..Asked::new(Some(100), Vec::new())
    };
    let (got, chosen) = keyless.choose(&[]);
    assert_eq!((got, chosen.cookie.is_none()), (LIVE, true));
}
