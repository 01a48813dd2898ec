//! The routes of a Build Output API v3 release: phases of steps, executed in the order that its inventors document.
//!
//! ```text
//! null ─▶ file? ─▶ miss ─▶ filesystem ─▶ file? ─▶ rewrite ─▶ file? ─▶ resource ─▶ file? ─▶ error
//!           └──────────────────────────────┴────── hit ──────┴────────────────────┘
//! ```
//!
//! Pure. What `config.json` says is [`written`], [`compile`](OutputConfig::compile)d once where a release is made,
//! and carried in its config as an [`Output`]; an edge arranges it as [`Arranged`] and only executes. Patterns run under
//! limits: no route can hold a request longer than [`matcher::BACKTRACKS`] steps each.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Forward;

mod accepted;
mod arranged;
mod compile;
mod condition;
mod guarded;
mod having;
mod index;
mod matcher;
mod run;
mod template;
mod texts;
mod transform;
mod written;

pub(super) use arranged::Arranged;
pub use compile::{OutputProblem, check_file_override};
pub(super) use run::decide;
pub use written::{
    FileOverride, MAX_ROUTES, Operators, OutputConfig, WrittenConditionValue, WrittenRoute,
    WrittenWildcard,
};

/// What a Build Output release does with requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Output {
    /// Its routes, in the order in which they are written.
    pub routes: Vec<OutputRoute>,
    /// What `$wildcard` stands for, by host.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub wildcards: BTreeMap<String, String>,
    /// Where routes lead that name another server; numbered after the forwards of `helix.toml`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
    /// Functions, by their path without a slash at its start. None runs: the release was deployed without them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub functions: BTreeMap<String, Function>,
    /// What else of the output is not served by an edge, each by its name: `middleware`, `images`, `crons`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unserved: Vec<String>,
}

/// A function as its `.vc-config.json` declares it, as far as is noted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Function {
    /// As `nodejs22.x` or `edge`; empty where nothing was said.
    pub runtime: String,
    /// The file within it that is called.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub handler: String,
}

/// When routes are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Before any file is looked up.
    #[default]
    Null,
    /// After the first lookup that found nothing.
    Filesystem,
    /// Dynamic routes.
    Rewrite,
    /// The last resort.
    Resource,
    /// After each lookup that found nothing.
    Miss,
    /// After each lookup that found a file; it only adds fields.
    Hit,
    /// When there is a status that says what went wrong.
    Error,
}

/// All phases.
const PHASES: [Phase; 7] = [
    Phase::Null,
    Phase::Filesystem,
    Phase::Rewrite,
    Phase::Resource,
    Phase::Miss,
    Phase::Hit,
    Phase::Error,
];

/// One route: which requests it is for, what it does to them, and what happens then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRoute {
    /// Line of `config.json`, counted from 1.
    pub line: usize,
    /// When it is asked.
    #[serde(default, skip_serializing_if = "is_null")]
    pub phase: Phase,
    /// The paths it is for, as a regular expression that holds for the whole path.
    pub src: String,
    /// Whether capitals make a difference.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub case_sensitive: bool,
    /// The methods it is for; all, if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// What a request must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub has: Vec<Condition>,
    /// What it must not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Condition>,
    /// What it does, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Where it leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Destination>,
    /// What happens after it.
    #[serde(default)]
    pub then: Then,
}

/// Something that a route does to a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Status and fields that routes before gave are forgotten.
    Reset,
    /// The client is sent to the page of a language that it likes.
    Locale {
        /// Where to, by language in lower case.
        redirect: BTreeMap<String, String>,
        /// The cookie that says more than `Accept-Language`.
        cookie: Option<String>,
    },
    /// A field, whose value is a template.
    Field(String, String),
    /// What the response's fields become at the end.
    Transform(Transform),
    /// The status.
    Status(u16),
}

/// A change of fields, once all are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transform {
    /// What is done.
    pub operation: Operation,
    /// Which fields.
    pub key: TransformKey,
    /// Values, as templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a transform changes fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// One more value.
    Append,
    /// This value instead of others.
    Set,
    /// None; with values, none of these.
    Delete,
}

/// Which fields a transform is for, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransformKey {
    /// These.
    Names(Vec<String>),
    /// Those whose name starts so.
    Prefix(String),
    /// Those whose name ends so.
    Suffix(String),
}

/// Where a route leads: templates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Destination {
    /// Another path of this release, and a query.
    Path(String),
    /// Another URL, to which the client is sent with a status of the route.
    Away(String),
    /// Another server: which of [`Output::forwards`], and path and query there.
    Forward(usize, String),
}

/// What happens after a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// The phase ends.
    #[default]
    Stop,
    /// The next route is asked.
    Continue,
    /// The file is looked up; if there is none, missing files' and dynamic routes are asked, then the next.
    Check,
}

/// Something that a request has or lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What is looked at.
    pub of: Subject,
    /// What its value must be; any, if there is no test.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<Test>,
}

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The host, without a port.
    Host,
    /// A header field, in lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    Query(String),
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Test {
    /// This.
    Is(String),
    /// Anything but this.
    IsNot(String),
    /// One of these.
    In(Vec<String>),
    /// None of these.
    NotIn(Vec<String>),
    /// It starts so.
    Prefix(String),
    /// It ends so.
    Suffix(String),
    /// All of it fits a regular expression, whose names stand for what they found.
    Fits(String),
    /// A number above this.
    Above(i64),
    /// A number not below this.
    AtLeast(i64),
    /// A number below this.
    Below(i64),
    /// A number not above this.
    AtMost(i64),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_null(phase: &Phase) -> bool {
    *phase == Phase::Null
}

/// What routes gave a response, beside its decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Fields in lower case, in order.
    pub fields: Vec<(String, String)>,
    /// Names of request fields that another value of could have led elsewhere.
    pub asked: Vec<String>,
    /// Path and query for the upstream that the request is sent on to.
    pub upstream_target: Option<String>,
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
