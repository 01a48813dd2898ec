//! What came of a gate, with what it saw: the evidence that travels from an edge to whoever asks why.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::verdict::Verdict;

/// Most characters of a body's start, a reason or an address that are kept as evidence.
pub const MAX_EVIDENCE_CHARS: usize = 300;

/// What a gate looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum GateKind {
    /// The response to a request.
    Http,
    /// A connection.
    Tcp,
    /// The health of a gRPC service.
    Grpc,
    /// The end of a command.
    Exec,
    /// Built in: the artifact is here and verified.
    Artifact,
    /// Built in: certificates for the site's hosts.
    Certificate,
    /// Built in: a server of each upstream can be reached.
    Upstream,
}

/// How a gate ended on one edge, and what it saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GateResult {
    /// Its name.
    pub gate: String,
    /// What it looks at.
    pub kind: GateKind,
    /// How it ended.
    pub verdict: Verdict,
    /// The URL, address or command of the last probe; empty where nothing was asked.
    pub asked: String,
    /// The status of the last response, or of the gRPC health check.
    pub status: Option<u16>,
    /// The start of the last response's body.
    pub body: Option<String>,
    /// What was wrong with the last answer, or what is worth knowing although it was good.
    pub reason: Option<String>,
    /// How many probes there were.
    pub probes: u32,
    /// From its start to its end, in milliseconds.
    pub elapsed_ms: u64,
    /// When the last probe started.
    pub last_probe: Option<Timestamp>,
}

impl GateResult {
    /// Whether a release may go live for all that this gate says.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.verdict == Verdict::Pass
    }
}

/// The start of a text, as evidence: no control characters, not too long.
#[must_use]
pub fn evidence(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_EVIDENCE_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(MAX_EVIDENCE_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

impl GateKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Http,
        Self::Tcp,
        Self::Grpc,
        Self::Exec,
        Self::Artifact,
        Self::Certificate,
        Self::Upstream,
    ];
}

impl fmt::Display for GateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Grpc => "grpc",
            Self::Exec => "exec",
            Self::Artifact => "artifact",
            Self::Certificate => "certificate",
            Self::Upstream => "upstream",
        })
    }
}

/// In one line: `gate api: fail: http://10.0.0.5:8080/healthz answered 503, wanted 2xx (3 probes in 2.1 s): "starting"`.
impl fmt::Display for GateResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gate {}: {}", self.gate, self.verdict)?;
        if !self.asked.is_empty() {
            write!(f, ": {}", self.asked)?;
        }
        if let Some(reason) = &self.reason {
            let gap = if self.asked.is_empty() { ": " } else { " " };
            write!(f, "{gap}{reason}")?;
        }
        if self.probes > 0 {
            let many = if self.probes == 1 { "" } else { "s" };
            let (seconds, tenths) = (self.elapsed_ms / 1000, self.elapsed_ms % 1000 / 100);
            write!(f, " ({} probe{many} in {seconds}.{tenths} s)", self.probes)?;
        }
        match &self.body {
            Some(body) if !self.is_passed() && !body.is_empty() => write!(f, ": {body:?}"),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;
    use alloc::string::ToString;

    #[test]
    fn a_result_is_one_line_with_what_was_seen() {
        let mut result = GateResult {
            gate: "api".to_owned(),
            kind: GateKind::Http,
            verdict: Verdict::Fail,
            asked: "http://10.0.0.5:8080/healthz".to_owned(),
            status: Some(503),
            body: Some("starting\t\"soon\"".to_owned()),
            reason: Some("answered 503, wanted 2xx".to_owned()),
            probes: 3,
            elapsed_ms: 2190,
            last_probe: None,
        };
        assert_eq!(
            result.to_string(),
            "gate api: fail: http://10.0.0.5:8080/healthz answered 503, wanted 2xx (3 probes in 2.1 s): \
             \"starting\\t\\\"soon\\\"\""
        );
        result.verdict = Verdict::Pass;
        result.reason = None;
        result.probes = 1;
        assert_eq!(
            result.to_string(),
            "gate api: pass: http://10.0.0.5:8080/healthz (1 probe in 2.1 s)"
        );
    }

    #[test]
    fn evidence_is_short_and_holds_no_control_characters() {
        assert_eq!(evidence("a\r\n\u{1b}[31mb"), "a   [31mb");
        let long = evidence(&"ä".repeat(MAX_EVIDENCE_CHARS + 1));
        assert_eq!(long.chars().count(), MAX_EVIDENCE_CHARS + 1);
        assert!(long.ends_with('…'));
        assert!(!evidence(&"ä".repeat(MAX_EVIDENCE_CHARS)).ends_with('…'));
    }
}
