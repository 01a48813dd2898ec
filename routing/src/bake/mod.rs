//! Watching a release after its swap: what edges count of it, what it is held to, and what that comes to.
//!
//! ```text
//! edges count ──▶ Window of the release, Window of the one before ──▶ judge ──▶ Judgement: verdict and measures
//! ```
//!
//! Pure, and in whole numbers. Windows of edges add up in any order, so that a lost, late or repeated report changes
//! nothing. Who asks when, and what a verdict leads to, is [`crate::rollout`]'s.

mod histogram;
mod judge;
mod quantity;
mod rules;
mod view;
mod window;

pub use histogram::{BUCKETS, Histogram, InvalidHistogram, bucket};
pub use judge::{Judgement, Measure, Unit, is_beyond_chance, judge};
pub use quantity::{InvalidQuantity, Number, Share, Times};
pub use rules::{
    BakeRules, GuardRules, LatencyLimit, MAX_CHECKS, OnFail, OnInconclusive, OnOriginLoss,
    PromqlCheck,
};
pub use view::{BakeView, CheckView};
pub use window::{InvalidWindow, Window};
