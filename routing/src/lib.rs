//! The part of HelixStack that decides.
//!
//! It answers three questions: which site and release does a request belong to, what must an
//! edge or origin do next in a rollout, and is this record newer than that one. It refuses to
//! know anything else: the crate is `no_std`, so it cannot read a clock, a file, a socket or
//! the environment, and the compiler holds it to that. Time comes in as a [`time::Timestamp`].
#![cfg_attr(not(any(test, feature = "openapi")), no_std)]
#![warn(missing_docs, clippy::wildcard_enum_match_arm)]

extern crate alloc;

pub mod api;
pub mod artifact;
pub mod bake;
pub mod edge;
pub mod gate;
pub mod glass;
pub mod host;
pub mod id;
pub mod in_flight;
pub mod key;
#[cfg(feature = "openapi")]
mod openapi;
pub mod operators;
pub mod protection;
pub mod provenance;
pub mod queue;
pub mod recall;
pub mod record;
pub mod report;
pub mod restart;
pub mod rollout;
pub mod routes;
pub mod seal;
pub mod snapshot;
pub mod time;
pub mod verdict;
pub mod visitor;
pub mod webhook;
pub mod wire;
