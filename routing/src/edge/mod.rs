//! An edge as a node of the fleet: what it is told besides what it serves, what it says of itself.

pub mod join;
pub mod record;
pub mod report;
pub mod view;
