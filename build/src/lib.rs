//! The build plane: a worker takes a build off the queue, fetches the source at its commit, finds out how it is built, builds it
//! where it can do no harm, and brings what came out to origin.
//!
//! [`worker`] tells the story; [`fetch`] brings the source, [`detect`] decides, from files alone; [`toolchain`] and [`dependencies`]
//! have what is needed at hand; [`sandbox`] runs, and [`egress`] is its only way out; [`log`] keeps what is printed, without secrets;
//! [`materials`] lists what it was made of, and [`output`] looks through what came out. [`local`] does the same in place, for `helix build`.

pub mod config;
pub mod dependencies;
pub mod detect;
pub mod egress;
pub mod environment;
pub mod fetch;
pub mod local;
pub mod log;
pub mod materials;
pub mod output;
pub mod sandbox;
pub mod toolchain;
pub mod worker;
