//! The control service: records in SQL, artifacts on disk, the API in front of both, and origin's half of a release.
//!
//! Invariant: SQL is the record. Everything in NATS can be rebuilt from it, and every change is
//! one transaction. It serves no visitor and depends on no edge to be there.
#![warn(missing_docs)]

pub mod address;
pub mod api;
pub mod app;
pub mod artifact;
pub mod audit;
pub mod auth;
pub mod config;
pub mod domain;
pub mod feed;
pub mod project;
pub mod registry;
pub mod store;
