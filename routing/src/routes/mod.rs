//! What a release does with a request besides looking up the file of that name.
//!
//! Pure. Compiled once from a site's `helix.toml`, `_redirects` and `_headers`, carried in the release's
//! config, executed by every edge and by `helix explain`. What cannot be compiled is refused with the
//! file and the line, so that no edge ever meets a rule that it has to interpret in its own way.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bake::BakeRules;
use crate::gate::{self, Gate};
use crate::rollout::RolloutPolicy;

mod config;
mod decide;
mod drain;
mod forward;
mod headers;
mod html;
mod kind;
pub mod output;
mod path;
mod pattern;
mod redirect;
mod span;
mod upstream;

pub use config::{HttpsPolicy, SiteConfig, StaticConfig};
pub use decide::{Client, Decided, Decision, Rules, Target, merge};
pub use drain::{Drain, Grace};
pub use forward::Forward;
pub(crate) use forward::is_name;
pub use headers::HeaderRule;
pub use html::{Files, Found, HtmlHandling, NotFoundHandling, find, nearest_not_found_page};
pub use kind::{is_asset, is_immutable, is_page};
pub use output::Output;
pub use path::{BadPath, Decoded, decode, encode};
pub use pattern::{InvalidPattern, Pattern};
pub use redirect::{Condition, Parameter, Redirect};
pub use span::{InvalidSpan, Span};
pub(crate) use upstream::bounded;
pub use upstream::{
    Address, AddressHost, HealthCheck, InvalidAddress, Timeouts, Upstream, UpstreamProtocol,
    UpstreamTls,
};

/// The route table of one release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Routes {
    /// How pages are found by their path.
    pub html_handling: HtmlHandling,
    /// What a path gets that means no file.
    pub not_found_handling: NotFoundHandling,
    /// Servers that requests may be sent on to, by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Which requests are sent on; the first that fits decides.
    pub forwards: Vec<Forward>,
    /// What has to be shown on every edge before the release goes live there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// Rules of `_redirects`; the first that fits decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<Redirect>,
    /// Blocks of `_headers`; all that fit count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderRule>,
    /// What requests get that come without TLS.
    #[serde(skip_serializing_if = "HttpsPolicy::is_optional")]
    pub https: HttpsPolicy,
    /// Whether responses do not carry `x-helix-*`.
    pub unmarked: bool,
    /// Whether responses carry `server-timing`.
    pub server_timing: bool,
    /// What the release is held to after its swap. Edges do not read it.
    #[serde(skip_serializing_if = "is_default_bake")]
    pub bake: BakeRules,
    /// What is granted to what is in flight once the release is no longer live.
    #[serde(skip_serializing_if = "Drain::is_default")]
    pub drain: Drain,
    /// In which stages it goes out. Edges do not read it.
    #[serde(skip_serializing_if = "RolloutPolicy::is_silent")]
    pub rollout: RolloutPolicy,
    /// Routes of a Build Output release. They decide in the place of files, redirects and pages by their path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Box<Output>>,
}

fn is_default_bake(bake: &BakeRules) -> bool {
    *bake == BakeRules::default()
}

impl Routes {
    /// Which of [`forwards`](Self::forwards) a request for `path`, escaped as sent, is sent on by.
    #[must_use]
    pub fn forward_for(&self, path: &str) -> Option<usize> {
        self.forwards.iter().position(|forward| forward.fits(path))
    }

    /// How many rules send requests on, those of a Build Output release among them.
    #[must_use]
    pub fn forward_count(&self) -> usize {
        let own = self
            .output
            .as_ref()
            .map_or(0, |output| output.forwards.len());
        self.forwards.len() + own
    }

    /// The rule of this number, and its upstream.
    #[must_use]
    pub fn forward(&self, rule: usize) -> Option<(&Forward, &Upstream)> {
        let forward = match rule.checked_sub(self.forwards.len()) {
            None => self.forwards.get(rule)?,
            Some(at) => self.output.as_ref()?.forwards.get(at)?,
        };
        Some((forward, self.upstreams.get(&forward.upstream)?))
    }
}

/// A key of `helix.toml` whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct KeyProblem {
    /// As `upstreams.api.timeouts.connect` or `forward[0].path`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl KeyProblem {
    pub(crate) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
        }
    }
}

/// Lines that stand in another file, and mean what lines of `_redirects` or `_headers` do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenLines {
    /// The file.
    pub file: &'static str,
    /// Each with the line that it stands for, counted from 1.
    pub lines: Vec<(usize, String)>,
}

impl WrittenLines {
    /// The lines of `text`, which stands in `file`, and these behind them: file, number and line.
    fn after<'a>(
        &'a self,
        file: &'static str,
        text: &'a str,
    ) -> impl Iterator<Item = (&'static str, usize, &'a str)> {
        let own = text.lines().enumerate();
        let own = own.map(move |(at, line)| (file, at + 1, line));
        let more = self.lines.iter();
        own.chain(more.map(|(number, line)| (self.file, *number, line.as_str())))
    }
}

/// Why a site's rules cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct RouteError {
    /// `helix.toml`, `_redirects`, `_headers`, `netlify.toml`, or the `config.json` of a Build Output.
    pub file: &'static str,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Routes {
    /// Compiles what a site says in its `helix.toml`, `_redirects` and `_headers`.
    ///
    /// # Errors
    /// Everything that is wrong, each with its file and line.
    pub fn compile(
        config: SiteConfig,
        redirects: Option<&str>,
        headers: Option<&str>,
    ) -> Result<Self, Vec<RouteError>> {
        Self::compile_with(config, (redirects, headers), &<_>::default())
    }

    /// The same, with lines from elsewhere behind those of `_redirects` and of `_headers`.
    ///
    /// # Errors
    /// Everything that is wrong, each with its file and line.
    pub fn compile_with(
        config: SiteConfig,
        (redirects, headers): (Option<&str>, Option<&str>),
        (more_redirects, more_headers): &(WrittenLines, WrittenLines),
    ) -> Result<Self, Vec<RouteError>> {
        let redirects = redirect::parse(redirects.unwrap_or_default(), more_redirects);
        let headers = headers::parse(headers.unwrap_or_default(), more_headers);
        let (redirects, headers) = match (redirects, headers) {
            (Ok(redirects), Ok(headers)) => (redirects, headers),
            (redirects, headers) => {
                let errors = redirects.err().into_iter().chain(headers.err());
                return Err(errors.flatten().collect());
            }
        };
        // Checked where the lines of the file are known; whoever did not gets the problem without its line.
        let gates = gate::parse(&config.gates, &config.upstreams).map_err(|wrong| {
            let problem = wrong.to_string();
            let file = "helix.toml";
            Vec::from([RouteError {
                file,
                line: 1,
                problem,
            }])
        })?;
        Ok(Self {
            gates,
            redirects,
            headers,
            html_handling: config.static_files.html_handling,
            not_found_handling: config.static_files.not_found_handling,
            upstreams: config.upstreams,
            forwards: config.forward,
            https: config.https,
            unmarked: config.static_files.unmarked,
            server_timing: config.static_files.server_timing,
            bake: config.bake,
            drain: config.drain,
            rollout: config.rollout,
            output: None,
        })
    }
}
