//! What is in flight, in words. *Pure*.

use helix_routing::api::InFlightView;
use helix_routing::time::Timestamp;

/// As in `3 requests; 9c1f… draining: 1 request, 40 websockets, ≤ 80 s`; nothing where nothing is.
pub(crate) fn described(views: &[InFlightView], now: Timestamp) -> Option<String> {
    let live = views.iter().filter(|view| !view.draining).map(counts);
    let left = views.iter().filter(|view| view.draining);
    let left = left.map(|view| format!("{} draining: {}", view.release, draining(view, now)));
    let parts: Vec<_> = live.chain(left).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// As in `1 request, 40 websockets, ≤ 80 s`.
pub(crate) fn draining(view: &InFlightView, now: Timestamp) -> String {
    let counts = counts(view);
    match view.until {
        Some(until) => {
            let left = until.since(now).as_millis().div_ceil(1000);
            format!("{counts}, ≤ {left} s")
        }
        None => format!("{counts}, as long as it takes"),
    }
}

/// As in `1 request, 40 websockets`.
pub(crate) fn counts(view: &InFlightView) -> String {
    let count = |count: u64, one: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {one}s")),
    };
    let counts = [
        count(view.requests, "request"),
        count(view.websockets, "websocket"),
    ];
    counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drains_says_how_long_it_has() {
        let view = |requests, websockets, draining, until: Option<u64>| InFlightView {
            region: "fra".parse().unwrap(),
            release: "00112233445566778899".parse().unwrap(),
            requests,
            websockets,
            draining,
            until: until.map(Timestamp::from_millis),
        };
        let now = Timestamp::from_millis(20_500);
        assert_eq!(described(&[], now), None);
        let views = [view(1, 0, false, None), view(0, 312, true, Some(100_000))];
        assert_eq!(
            described(&views, now).unwrap(),
            "1 request; 00112233445566778899 draining: 312 websockets, ≤ 80 s"
        );
        assert_eq!(
            draining(&view(2, 1, true, None), now),
            "2 requests, 1 websocket, as long as it takes"
        );
    }
}
