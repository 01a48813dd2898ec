//! `config.json` of a Build Output folder as its builders write it: shapes, and how many of each there may be.
//!
//! Pure. Who reads the file gives each route its line; what shapes mean is [`compile`](super::compile)'s business.
//! A key that is not known is refused, since nobody could say what was lost without it.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::Function;

/// Most routes: twice what the inventors of the format allow.
pub const MAX_ROUTES: usize = 4096;
/// Most routes and conditions whose pattern has look-around: each may have to be tried for each request.
pub(super) const MAX_LOOK_AROUND: usize = 400;
/// Most conditions of one route, as the inventors have it; also methods, transforms, and values of one.
pub(super) const MAX_OF_ONE: usize = 16;
/// Most distinct fields that all routes give: one response never carries more.
pub(super) const MAX_FIELDS: usize = 100;
/// Longest template, in bytes.
pub(super) const MAX_TEMPLATE_BYTES: usize = 4096;
/// Most hosts with a `$wildcard` of their own; also languages of one route.
pub(super) const MAX_NAMED: usize = 1000;

/// A whole `config.json`, and the functions that lie beside it.
#[derive(Clone, Debug, Default)]
pub struct OutputConfig {
    /// Routes and handles, each with its line.
    pub routes: Vec<(usize, WrittenRoute)>,
    /// By path within `static/`.
    pub overrides: BTreeMap<String, FileOverride>,
    /// What `$wildcard` stands for.
    pub wildcard: Vec<WrittenWildcard>,
    /// What else there is that edges do not serve, each by its name: `images`, `crons`, `services`.
    pub unserved: Vec<String>,
    /// By path, without `.func`.
    pub functions: BTreeMap<String, Function>,
}

/// A source route, or a handle.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct WrittenRoute {
    pub(super) handle: Option<String>,
    pub(super) src: Option<String>,
    pub(super) dest: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) methods: Vec<String>,
    #[serde(rename = "continue")]
    pub(super) continues: bool,
    pub(super) case_sensitive: bool,
    pub(super) check: bool,
    pub(super) status: Option<u16>,
    pub(super) has: Vec<WrittenCondition>,
    pub(super) missing: Vec<WrittenCondition>,
    pub(super) locale: Option<WrittenLocale>,
    pub(super) middleware_path: Option<String>,
    pub(super) middleware_raw_src: Vec<String>,
    pub(super) middleware: Option<u32>,
    pub(super) mitigate: Option<WrittenMitigation>,
    pub(super) transforms: Vec<WrittenTransform>,
    #[serde(rename = "override")]
    pub(super) overrides: bool,
    pub(super) important: bool,
    pub(super) respect_origin_cache_control: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenCondition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) key: Option<String>,
    pub(super) value: Option<WrittenConditionValue>,
}

/// What a condition's value must be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum WrittenConditionValue {
    /// A regular expression.
    Pattern(String),
    /// Operators, all of which must hold.
    Operators(Box<Operators>),
}

/// Operators on a value.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Operators {
    pub(super) eq: Option<Scalar>,
    pub(super) neq: Option<Scalar>,
    pub(super) inc: Option<Vec<Scalar>>,
    pub(super) ninc: Option<Vec<Scalar>>,
    pub(super) pre: Option<String>,
    pub(super) suf: Option<String>,
    pub(super) re: Option<String>,
    pub(super) gt: Option<i64>,
    pub(super) gte: Option<i64>,
    pub(super) lt: Option<i64>,
    pub(super) lte: Option<i64>,
}

/// A text or a whole number.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Text(String),
    Number(i64),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenLocale {
    #[serde(default)]
    pub(super) redirect: BTreeMap<String, String>,
    pub(super) cookie: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenMitigation {
    pub(super) action: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTransform {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) op: String,
    pub(super) target: Option<WrittenTarget>,
    pub(super) args: Option<OneOrMore>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTarget {
    pub(super) key: WrittenConditionValue,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// What a file of `static/` is served as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FileOverride {
    /// Its path in the place of its own; none has it if this ends with a slash.
    pub path: Option<String>,
    /// Its `Content-Type` in the place of the one that goes with its name.
    pub content_type: Option<String>,
    /// Permissions, which say nothing on the web.
    pub mode: Option<u32>,
}

/// What `$wildcard` stands for on a host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenWildcard {
    /// The host.
    pub domain: String,
    /// The text.
    pub value: String,
}
