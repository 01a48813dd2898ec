//! The edge: serves requests, and carries out its half of a cutover.
//!
//! Two stories meet in one pointer per site. The request story ([`table`] and what stands around it)
//! reads it; the release story writes it: [`feed`] follows origin's records, [`state`] keeps them on
//! disk, [`store`] fetches and keeps artifacts, [`agent`] decides what each site serves.
//! Nothing here decides which release a region should have; that is origin's.

pub mod agent;
pub mod app;
pub mod config;
pub mod feed;
pub mod release;
pub mod state;
pub mod store;
