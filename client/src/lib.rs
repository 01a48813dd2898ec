//! Origin's HTTP API for whoever calls it: the command, and workers that build.
//!
//! [`origin`] makes the calls, [`retry`] repeats those that may be, [`events`] follows a rollout, and [`upload`] brings a folder's
//! contents to origin. It knows no command line and prints nothing.

pub mod build_log;
pub mod events;
pub mod origin;
pub mod retry;
pub mod upload;

pub use origin::{Access, Origin, OriginError};
