//! The build plane: a worker takes a build off the queue, fetches the source at its commit, finds out how it is built, builds it
//! where it can do no harm, and brings what came out to origin.
//!
//! [`detect`] decides, from files alone; [`sandbox`] runs, and [`egress`] is its only way out; [`log`] keeps what is printed, without
//! secrets.

pub mod detect;
pub mod egress;
pub mod log;
pub mod sandbox;
