//! The control service: records in SQL, artifacts on disk, the API in front of both, and origin's half of a release.
//!
//! Invariant: SQL is the record. Everything in NATS can be rebuilt from it, and every change is
//! one transaction. It serves no visitor and depends on no edge to be there.
#![warn(missing_docs)]

pub mod address;
pub mod admin;
pub mod admission;
pub mod api;
pub mod app;
pub mod artifact;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod bill;
pub mod build;
pub mod collect;
pub mod config;
pub mod deployment;
pub mod domain;
pub mod event;
pub mod explain;
pub mod feed;
pub mod fleet;
pub mod gate;
pub mod glass;
pub mod hold;
pub mod idempotency;
pub mod key_file;
pub mod lane;
pub mod metrics;
pub mod overview;
pub mod pin;
pub mod project;
pub mod promotion;
pub mod protection;
pub mod provenance;
pub mod purge;
pub mod quarantine;
pub mod recovery;
pub mod registry;
pub mod relay;
pub mod remote;
pub mod restart;
pub mod rollback;
pub mod rollout;
pub mod source;
pub mod standby;
pub mod store;
pub mod upkeep;
pub mod visitor_key;
pub mod webhook;
