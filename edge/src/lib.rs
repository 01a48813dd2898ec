//! The edge: serves requests, and carries out its half of a cutover.
//!
//! Two stories meet in one pointer per site. The request story ([`table`] and what stands around it)
//! reads it; the release story writes it: [`feed`] follows origin's records, [`state`] keeps them on
//! disk, [`store`] fetches and keeps artifacts, [`agent`] decides what each site serves.
//! Nothing here decides which release a region should have; that is origin's.

pub mod access_log;
pub mod admin;
pub mod agent;
pub mod answer;
pub mod app;
mod breaks;
mod buffer;
pub mod cache;
pub mod config;
pub mod counted;
pub mod edge;
pub mod exchange;
pub mod feed;
pub mod forward;
pub mod gate;
pub mod handover;
pub mod http2;
pub mod http3;
pub mod in_flight;
pub mod join;
pub mod left;
pub mod limits;
pub mod listener;
pub mod local;
pub mod maintenance;
pub mod metrics;
pub mod protection;
pub mod proxy;
pub mod release;
mod socket;
pub mod state;
pub mod static_files;
pub mod store;
pub mod table;
pub mod tally;
pub mod tls;
pub mod trace;
pub mod visitor;
