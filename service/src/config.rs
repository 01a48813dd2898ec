//! One TOML file per process, overridden by the environment. An unknown key is an error that names it.
//!
//! `HELIX_EDGE_LISTEN` sets `listen` and `HELIX_EDGE_NATS__URL` sets `url` of `[nats]` when the prefix is
//! `HELIX_EDGE`. A value that reads as a TOML integer or boolean is one; everything else is text.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// A configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read config {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not TOML, has an unknown key, lacks one, or has a value that does not fit.
    #[error("config {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A variable names a table that the file has as a plain value.
    #[error("environment variable {name} does not fit the shape of the config")]
    Variable {
        /// The variable.
        name: String,
    },
}

/// Reads `path` and lays the environment over it.
///
/// # Errors
/// As [`ConfigError`] says.
pub fn load<T: DeserializeOwned>(path: &Path, prefix: &str) -> Result<T, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let refused = |source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let mut variables: Vec<(String, String)> = std::env::vars()
        .filter(|(name, _)| name.starts_with(&format!("{prefix}_")))
        .collect();
    if variables.is_empty() {
        // Straight from the text: errors then show line and column.
        return toml::from_str(&text).map_err(refused);
    }
    variables.sort();
    let mut table: Table = toml::from_str(&text).map_err(refused)?;
    for (name, value) in variables {
        overlay(
            &mut table,
            &name[prefix.len() + 1..].to_ascii_lowercase(),
            &value,
        )
        .ok_or(ConfigError::Variable { name })?;
    }
    Value::Table(table).try_into().map_err(refused)
}

fn overlay(table: &mut Table, path: &str, value: &str) -> Option<()> {
    let Some((head, rest)) = path.split_once("__") else {
        table.insert(path.to_owned(), scalar(value));
        return Some(());
    };
    let inner = table
        .entry(head)
        .or_insert_with(|| Value::Table(Table::new()));
    overlay(inner.as_table_mut()?, rest, value)
}

fn scalar(text: &str) -> Value {
    if let Ok(number) = text.parse::<i64>() {
        Value::Integer(number)
    } else if let Ok(truth) = text.parse::<bool>() {
        Value::Boolean(truth)
    } else {
        Value::String(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        listen: String,
        nats: Nats,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nats {
        url: String,
    }

    fn write(text: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("helix-config-{}.toml", crate::random::hex16()));
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn an_unknown_key_is_named() {
        let path = write("listen = \"a\"\nlissten = \"b\"\n[nats]\nurl = \"c\"\n");
        let error = load::<Sample>(&path, "HELIX_NONE").unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("lissten"), "{cause}");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn variables_reach_into_tables() {
        let mut table: Table = toml::from_str("listen = \"a\"\n[nats]\nurl = \"c\"\n").unwrap();
        overlay(&mut table, "nats__url", "d").unwrap();
        overlay(&mut table, "listen", "e").unwrap();
        assert_eq!(overlay(&mut table, "listen__x", "f"), None);
        let sample: Sample = Value::Table(table).try_into().unwrap();
        assert_eq!(
            (sample.listen.as_str(), sample.nats.url.as_str()),
            ("e", "d")
        );
    }
}
