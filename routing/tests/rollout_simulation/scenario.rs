//! What a seed stands for: how large the world is, how bad its weather, and who does what when.
//!
//! All that goes wrong by plan is drawn at once, as a list, so that a failing seed can be made smaller by leaving parts of it out.

use helix_routing::api::PhaseName;

use crate::clocks::MOST_SKEW;
use crate::dice::Dice;
use crate::hosts::HOSTS;
use crate::pins::LABELS;

/// Releases there are, by number. Those below [`crate::bakes::SICK`] answer every request with 500.
pub(crate) const RELEASES: u8 = 7;

const MOST_DEEDS: u64 = 40;
/// Somebody deploys about so often, in milliseconds, whatever else there is.
const BETWEEN_DEPLOYMENTS: u64 = 25_000;

/// Those in which something is to come yet, or may.
const PHASES: &[PhaseName] = &[
    PhaseName::Preparing,
    PhaseName::Prepared,
    PhaseName::Committing,
    PhaseName::Admitting,
    PhaseName::Canary,
    PhaseName::Admitted,
    PhaseName::Baking,
    PhaseName::Stable,
    PhaseName::Undecided,
    PhaseName::RollingBack,
    PhaseName::RolledBack,
];

/// What is taken away to see that a check fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Safeguard {
    GenerationCompare,
    EpochFence,
    StreamTerm,
    BootId,
    Gate,
    PersistBeforeAct,
    SyncBeforeReport,
    CollectInOneTransaction,
    OverrideOnDisk,
    OverrideStands,
    MostEdges,
    AdoptStanding,
    GuardInSilence,
    GuardOnce,
    DrainedHaveNoSay,
    OperatorTerm,
    AdoptSigned,
    AdoptAgain,
    AdoptOnce,
    GuardOfWhole,
    DrainsDoNotCount,
    LastEdge,
    PinsCarried,
    HostCompare,
    PurgeMoment,
    PurgeNumber,
}

/// What an operator presses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Press {
    Deploy {
        release: u8,
        is_automatic: bool,
    },
    Rollback,
    Restart,
    Pause,
    Resume,
    Abort,
    /// The stage that waits for it.
    Approve,
    /// A stage, whether it waits or not.
    ApproveStage(u16),
    /// Every quarantine.
    Lift,
    Hold {
        region: usize,
    },
    Unhold,
    Collect,
    /// An edge is taken out for maintenance, or put back; or the whole of a region at once.
    Drain {
        edge: usize,
        drains: bool,
    },
    DrainRegion(usize),
    /// A release is pinned under a label, or the label goes.
    Pin {
        label: u8,
        release: Option<u8>,
    },
    /// A host is pointed at this site, at the other one, or at none.
    Route {
        host: u8,
        site: u8,
    },
    /// So many purges of a page that has changed, or of another.
    Purge {
        times: u32,
        is_other: bool,
    },
}

/// Something that an operator does, or that happens to a node. Nodes are counted round, where there are fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Press(Press),
    /// It loses its power, and with it what was not synced.
    KillEdge(usize),
    /// The same of the one that wrote to its disk last.
    KillWriter,
    CutEdge {
        edge: usize,
        millis: u64,
    },
    /// It lives and is heard, and hears nothing.
    DeafenEdge {
        edge: usize,
        millis: u64,
    },
    FillDisk {
        edge: usize,
        millis: u64,
    },
    SkewEdge {
        edge: usize,
        ahead: i64,
    },
    /// Origin and its database lose their power.
    KillOrigin,
    /// The one that leads stands still, and then goes on as if nothing had been.
    FreezeOrigin {
        millis: u64,
    },
    SkewOrigin {
        origin: usize,
        ahead: i64,
    },
    /// The standby leads from now on, whatever the other one thinks.
    TakeOver,
    /// Both of them lose their power.
    LoseOrigins {
        millis: u64,
    },
    /// Somebody at the local socket of an edge, or of each of a region's, asks for the release before.
    Break(usize),
    BreakRegion(usize),
    /// The same somebody lets the record count again.
    EndBreak(usize),
    /// An operator signs the release before for a region, past origin.
    Sign(usize),
    /// The database starts again: what it had not synced may be gone, and nobody is told.
    LoseTail,
}

/// The sides of a save: it is on its way, it is in the database, it is acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Before,
    Between,
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    At(u64),
    /// At this save of the run, counted from 1: the worst of moments.
    Save(u32, Side),
    /// When some region comes to this phase for so many times.
    Phase(PhaseName, u32),
    /// At this write of an edge's disk, counted over all of them: it is not synced yet.
    Write(u32),
}

/// How messages fare. One in so many; none for zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) late: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// What is drawn on the way comes from the seed and this.
    pub(crate) luck: u64,
    pub(crate) regions: usize,
    /// In each region.
    pub(crate) edges: usize,
    /// Nothing goes wrong after so many milliseconds.
    pub(crate) horizon: u64,
    pub(crate) weather: Weather,
    /// Hardly anybody visits.
    pub(crate) is_quiet: bool,
    pub(crate) deeds: Vec<(When, Deed)>,
}

impl Scenario {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5ce7_a210);
        let horizon = dice.between(60_000, 300_000);
        let weather = Weather {
            lost: [0, 30, 10, 5][dice.pick(4)],
            repeated: [0, 20, 6][dice.pick(3)],
            late: [0, 30, 8][dice.pick(3)],
        };
        let mut deeds = vec![(When::At(1_000), deploy(&mut dice))];
        for _ in 0..horizon / BETWEEN_DEPLOYMENTS {
            deeds.push((When::At(dice.between(2_000, horizon)), deploy(&mut dice)));
        }
        for _ in 0..dice.between(6, MOST_DEEDS) {
            deeds.push(draw(&mut dice, horizon));
        }
        Self {
            seed,
            luck: 0,
            regions: 1 + dice.pick(3),
            edges: 1 + dice.pick(3),
            horizon,
            weather,
            is_quiet: dice.one_in(5),
            deeds,
        }
    }

    /// The dice that are rolled on the way.
    pub(crate) const fn dice(&self) -> Dice {
        Dice::new(self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ self.luck)
    }
}

fn deploy(dice: &mut Dice) -> Deed {
    Deed::Press(Press::Deploy {
        release: u8::try_from(dice.roll(u64::from(RELEASES))).unwrap(),
        is_automatic: dice.one_in(4),
    })
}

fn draw(dice: &mut Dice, horizon: u64) -> (When, Deed) {
    let side = [Side::Before, Side::Between, Side::After][dice.pick(3)];
    let count = u32::try_from(dice.between(1, 60)).unwrap();
    match dice.roll(20) {
        0 => (When::Write(count), Deed::KillWriter),
        1..5 => {
            let phase = PHASES[dice.pick(PHASES.len())];
            // Mostly the first time: to some a world comes but once.
            let most = dice.between(1, 4);
            let times = u32::try_from(dice.between(1, most)).unwrap();
            // What is asked then is of the rollout itself, half of the time. From an undecided region nothing else leads on.
            let deed = match (phase, dice.roll(4)) {
                (PhaseName::Undecided, _) | (_, 0) => Deed::Press(Press::Abort),
                (_, 1) => Deed::Press(Press::Pause),
                (PhaseName::Baking, 2) => Deed::LoseOrigins {
                    millis: dice.between(15_000, 45_000),
                },
                (_, _) => draw_deed(dice),
            };
            (When::Phase(phase, times), deed)
        }
        5..11 => (When::Save(count, side), draw_deed(dice)),
        _ => (When::At(dice.between(2_000, horizon)), draw_deed(dice)),
    }
}

fn draw_deed(dice: &mut Dice) -> Deed {
    let millis = dice.between(500, 25_000);
    let edge = dice.pick(9);
    let ahead =
        i64::try_from(dice.roll(MOST_SKEW)).unwrap() - i64::try_from(MOST_SKEW / 2).unwrap();
    match dice.roll(48) {
        0..=7 => deploy(dice),
        8..=20 | 38..=39 => Deed::Press(draw_press(dice)),
        21..=24 => Deed::KillEdge(edge),
        25..=26 => Deed::CutEdge { edge, millis },
        27 => Deed::DeafenEdge {
            edge,
            millis: millis * 4,
        },
        28..=29 => Deed::FillDisk { edge, millis },
        30 => Deed::SkewEdge { edge, ahead },
        31..=32 => Deed::KillOrigin,
        33 => Deed::FreezeOrigin { millis },
        34 => Deed::SkewOrigin {
            origin: edge,
            ahead,
        },
        35..=36 => Deed::TakeOver,
        37 => Deed::LoseTail,
        40..=41 => Deed::LoseOrigins { millis: millis * 2 },
        42 => Deed::Break(edge),
        43..=44 => Deed::BreakRegion(edge),
        45 => Deed::EndBreak(edge),
        46.. => Deed::Sign(edge),
    }
}

fn draw_press(dice: &mut Dice) -> Press {
    match dice.roll(22) {
        0..=2 => Press::Rollback,
        3 => Press::Restart,
        4..=5 => Press::Pause,
        6 => Press::Resume,
        7..=8 => Press::Abort,
        9 => Press::Approve,
        10 => Press::ApproveStage(u16::try_from(dice.roll(6)).unwrap()),
        11 => Press::Lift,
        12 => Press::Hold {
            region: dice.pick(3),
        },
        13 => Press::Unhold,
        14 | 17 => Press::Drain {
            edge: dice.pick(9),
            drains: !dice.one_in(3),
        },
        18 => Press::DrainRegion(dice.pick(3)),
        19 => Press::Route {
            host: u8::try_from(dice.roll(u64::from(HOSTS))).unwrap(),
            site: u8::try_from(dice.roll(3)).unwrap(),
        },
        21 => Press::Pin {
            label: u8::try_from(dice.roll(u64::from(LABELS))).unwrap(),
            release: (!dice.one_in(3))
                .then(|| u8::try_from(dice.roll(u64::from(RELEASES))).unwrap()),
        },
        20 => Press::Purge {
            times: if dice.one_in(8) { 150 } else { 1 },
            is_other: dice.one_in(3),
        },
        _ => Press::Collect,
    }
}
