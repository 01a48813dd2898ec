//! The short commands: each asks origin once and shows the answer.

pub(crate) mod audit;
pub(crate) mod build;
pub(crate) mod builds;
pub(crate) mod domains;
pub(crate) mod edges;
pub(crate) mod env;
pub(crate) mod explain;
pub(crate) mod flights;
pub(crate) mod freeze;
pub(crate) mod gates;
pub(crate) mod glass;
pub(crate) mod holds;
pub(crate) mod link;
pub(crate) mod lock;
pub(crate) mod login;
pub(crate) mod pins;
pub(crate) mod projects;
pub(crate) mod promote;
pub(crate) mod protect;
pub(crate) mod purge;
pub(crate) mod quarantines;
pub(crate) mod releases;
pub(crate) mod restart;
pub(crate) mod rollback;
pub(crate) mod rollout;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod tokens;
pub(crate) mod verify;
pub(crate) mod webhooks;

use std::fmt::Display;

/// What stands where there is nothing.
const NONE: &str = "-";

fn or_none(value: Option<&impl Display>) -> String {
    value.map_or_else(|| NONE.to_owned(), ToString::to_string)
}

fn joined<T: Display>(values: &[T]) -> String {
    if values.is_empty() {
        return NONE.to_owned();
    }
    values
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}
