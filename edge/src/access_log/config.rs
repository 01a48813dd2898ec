//! What an operator says about the access log.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the access log goes, and how its lines look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLogConfig {
    /// How lines look, or that there are none.
    #[serde(default)]
    pub format: Format,
    /// The file they are added to; standard output when it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

impl AccessLogConfig {
    /// No lines at all.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            format: Format::Off,
            path: None,
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object.
    #[default]
    Json,
    /// As Apache and nginx write it by this name.
    Combined,
    /// There is none.
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AccessLogConfig, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_access_log_is_json_on_standard_output_unless_said_otherwise() {
        assert_eq!(read("{}").unwrap(), AccessLogConfig::default());
        assert_eq!(read(r#"{"format":"off"}"#).unwrap(), AccessLogConfig::off());
        let combined = read(r#"{"format":"combined","path":"/var/log/access.log"}"#).unwrap();
        let path = Some("/var/log/access.log".into());
        let format = Format::Combined;
        assert_eq!(combined, AccessLogConfig { format, path });
    }

    #[test]
    fn what_an_access_log_does_not_know_is_an_error_that_names_it() {
        for (text, named) in [(r#"{"file":"a"}"#, "file"), (r#"{"format":"clf"}"#, "clf")] {
            let error = read(text).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
