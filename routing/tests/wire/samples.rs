//! One of each kind of record and report.

use core::time::Duration;

use helix_routing::bake::Window;
use helix_routing::edge::record::{Drain, EdgeRecord};
use helix_routing::edge::report::EdgeReport;
use helix_routing::gate::record::GateRecord;
use helix_routing::gate::report::GatesReport;
use helix_routing::gate::result::{GateKind, GateResult};
use helix_routing::id::{Epoch, Generation};
use helix_routing::in_flight::{Flying, FlyingState, InFlightReport};
use helix_routing::protection::{PasswordCheck, Protection};
use helix_routing::provenance::policy::Requires;
use helix_routing::record::{
    Beacon, Guard, HostRecord, Override, Pin, PinBy, PurgeEntry, PurgeRecord, PurgeUrl, ReleaseRef,
    SiteRecord,
};
use helix_routing::report::{
    Baseline, CandidateReport, CandidateState, Heartbeat, PurgeReport, SiteReport, StreamPosition,
    WindowReport,
};
use helix_routing::time::Timestamp;
use helix_routing::verdict::Verdict;

pub(crate) fn site_record() -> SiteRecord {
    let release = |digit: &str| ReleaseRef {
        release: digit.repeat(20).parse().unwrap(),
        artifact: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
    };
    SiteRecord {
        site: "shop/preview/42".parse().unwrap(),
        region: "fra".parse().unwrap(),
        epoch: Epoch(3),
        generation: Generation(300),
        live_since: Generation(299),
        live: Some(release("a")),
        candidate: Some(release("b")),
        weight: None,
        previous: vec![release("c")],
        pins: Vec::new(),
        overridden: None,
        guard: None,
        requires: None,
        protection: None,
        hold: None,
        bake_until: None,
        removed: false,
    }
}

/// With all that version 3 added.
pub(crate) fn newest_site_record() -> SiteRecord {
    SiteRecord {
        requires: Some(Box::new(Requires {
            repository: "https://github.com/acme/shop".to_owned(),
            branch: "main".to_owned(),
            uploads: true,
        })),
        ..full_site_record()
    }
}

/// With all that version 2 added.
pub(crate) fn full_site_record() -> SiteRecord {
    let plain = site_record();
    let (live, since) = (
        plain.live.clone().unwrap(),
        Timestamp::from_millis(1_700_000_000_000),
    );
    let pin = |label: &str, by| Pin {
        label: label.parse().unwrap(),
        by,
        release: live.clone(),
    };
    SiteRecord {
        weight: Some(25),
        pins: vec![
            pin("beta", PinBy::Label),
            pin("team", PinBy::header("X-Team", "internal").unwrap()),
            pin("old", PinBy::cookie("shop", "old").unwrap()),
        ],
        overridden: Some(Box::new(Override {
            reason: "origin is gone".to_owned(),
            by: "operator".to_owned(),
            since,
            until: since + Duration::from_secs(3600),
        })),
        guard: Some(Box::new(Guard {
            to: live.clone(),
            silence_secs: 30,
            min_requests: 100,
            max_5xx_millionths: 50_000,
            max_p99_ms: Some(2000),
        })),
        ..plain
    }
}

/// With all that version 3 added.
pub(crate) fn protected_site_record() -> SiteRecord {
    SiteRecord {
        protection: Some(Box::new(Protection {
            secret: "ab".repeat(32),
            password: Some(PasswordCheck {
                iterations: 600_000,
                salt: [7; 16],
                hash: [9; 32],
            }),
            exempt: vec!["/api/webhooks/*".parse().unwrap()],
        })),
        ..newest_site_record()
    }
}

pub(crate) fn host_record() -> HostRecord {
    HostRecord {
        host: "*.example.com".parse().unwrap(),
        epoch: Epoch(3),
        generation: Generation(2),
        site: Some("shop/production".parse().unwrap()),
    }
}

pub(crate) fn purge_record() -> PurgeRecord {
    PurgeRecord {
        site: "shop/production".parse().unwrap(),
        region: "fra".parse().unwrap(),
        epoch: Epoch(3),
        generation: Generation(300),
        purges: vec![PurgeEntry {
            at: Timestamp::from_millis(1_700_000_000_000),
            release: Some("a".repeat(20).parse().unwrap()),
            urls: vec![PurgeUrl {
                authority: "shop.example".to_owned(),
                target: "/a?b=c".to_owned(),
            }],
            tags: vec!["news".to_owned()],
            stale: true,
        }],
    }
}

pub(crate) fn purge_report() -> PurgeReport {
    PurgeReport {
        edge: "fra-1".parse().unwrap(),
        region: "fra".parse().unwrap(),
        boot: "0123456789abcdef".parse().unwrap(),
        site: "shop/production".parse().unwrap(),
        generation: Generation(300),
    }
}

pub(crate) fn gate_record() -> GateRecord {
    GateRecord {
        site: "shop/production".parse().unwrap(),
        region: "fra".parse().unwrap(),
        epoch: Epoch(3),
        generation: Generation(300),
        at: Timestamp::from_millis(1_700_000_000_000),
        release: ReleaseRef {
            release: "a".repeat(20).parse().unwrap(),
            artifact: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
        },
        gate: Some("home".to_owned()),
    }
}

pub(crate) fn gates_report() -> GatesReport {
    GatesReport {
        edge: "fra-1".parse().unwrap(),
        region: "fra".parse().unwrap(),
        boot: "0123456789abcdef".parse().unwrap(),
        site: "shop/production".parse().unwrap(),
        release: "a".repeat(20).parse().unwrap(),
        run: Some(Generation(300)),
        results: vec![GateResult {
            gate: "home".to_owned(),
            kind: GateKind::Http,
            verdict: Verdict::Fail,
            asked: "http://shop.example/".to_owned(),
            status: Some(404),
            body: Some("gone".to_owned()),
            reason: Some("answered 404, wanted 2xx".to_owned()),
            probes: 3,
            elapsed_ms: 2040,
            last_probe: Some(Timestamp::from_millis(1_700_000_000_000)),
        }],
    }
}

pub(crate) fn edge_record() -> EdgeRecord {
    EdgeRecord {
        edge: "fra-1".parse().unwrap(),
        region: "fra".parse().unwrap(),
        epoch: Epoch(3),
        generation: Generation(300),
        drain: Some(Drain {
            reason: "kernel".to_owned(),
            since: Timestamp::from_millis(1_700_000_000_000),
            until: Some(Timestamp::from_millis(1_700_000_600_000)),
        }),
    }
}

pub(crate) fn edge_report() -> EdgeReport {
    EdgeReport {
        edge: "fra-1".parse().unwrap(),
        region: "fra".parse().unwrap(),
        boot: "0123456789abcdef".parse().unwrap(),
        generation: Generation(300),
        drains: true,
        connections: 12,
    }
}

pub(crate) fn beacon() -> Beacon {
    Beacon {
        stream: "KV_g".to_owned(),
        incarnation: "0123456789abcdef".parse().unwrap(),
        epoch: Epoch(3),
        last_sequence: 1000,
        snapshot_sequence: Some(900),
        at: Timestamp::from_millis(1_700_000_000_000),
    }
}

pub(crate) fn site_report() -> SiteReport {
    SiteReport {
        edge: "fra-1".parse().unwrap(),
        region: "fra".parse().unwrap(),
        boot: "0123456789abcdef".parse().unwrap(),
        site: "shop/production".parse().unwrap(),
        generation: Generation(7),
        serving: Generation(6),
        live: Some("a".repeat(20).parse().unwrap()),
        candidate: Some(CandidateReport {
            release: "b".repeat(20).parse().unwrap(),
            state: CandidateState::Failed("disk full".to_owned()),
        }),
    }
}

pub(crate) fn in_flight_report() -> InFlightReport {
    let flying = |digit: &str, state| Flying {
        release: digit.repeat(20).parse().unwrap(),
        live_since: Generation(7),
        requests: 3,
        websockets: 312,
        state,
    };
    InFlightReport {
        edge: "fra-1".parse().unwrap(),
        region: "fra".parse().unwrap(),
        boot: "0123456789abcdef".parse().unwrap(),
        site: "shop/production".parse().unwrap(),
        releases: vec![
            flying("a", FlyingState::Live),
            flying("b", FlyingState::Until(Timestamp::from_millis(5))),
            flying("c", FlyingState::Unlimited),
        ],
    }
}

pub(crate) fn heartbeat() -> Heartbeat {
    Heartbeat {
        edge: "fra-1".parse().unwrap(),
        region: "fra".parse().unwrap(),
        boot: "0123456789abcdef".parse().unwrap(),
        version: "0.1.0".to_owned(),
        record_version: 1,
        at: Timestamp::from_millis(1_700_000_000_000),
        ready: true,
        streams: vec![StreamPosition {
            stream: "KV_g".to_owned(),
            incarnation: Some("0123456789abcdef".parse().unwrap()),
            sequence: 12,
            stale: false,
        }],
        refused: 0,
    }
}

pub(crate) fn window_report() -> WindowReport {
    let mut window = Window::default();
    window.add(false, 80_000);
    window.add(true, 3_000_000);
    WindowReport {
        edge: "fra-1".parse().unwrap(),
        region: "fra".parse().unwrap(),
        boot: "0123456789abcdef".parse().unwrap(),
        site: "shop/production".parse().unwrap(),
        release: "b".repeat(20).parse().unwrap(),
        live_since: Generation(7),
        window: window.clone(),
        baseline: Some(Baseline {
            release: "a".repeat(20).parse().unwrap(),
            window: window.merged(&window),
        }),
    }
}
