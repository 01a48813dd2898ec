//! What every Helix process needs and no more: its configuration, its clock and randomness, its
//! telemetry, its end, its keys and its link to NATS.
//!
//! Nothing here knows what a site or a rollout is; that is `helix_routing`'s.

pub mod claims;
pub mod clock;
pub mod config;
pub mod digest;
pub mod disk;
pub mod dsse;
pub mod error;
pub mod failpoint;
pub mod keys;
pub mod nats;
pub mod pass;
pub mod password;
pub mod port;
pub mod random;
pub mod reachable;
pub mod rules;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
