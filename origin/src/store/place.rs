//! Where the database is: a file of this machine, or a PostgreSQL server that several origins share.
//!
//! Invariant: what is shown of a place, in logs, errors and `--check`, never holds its password.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

/// What stands where a password was.
const HIDDEN: &str = "***";

/// Where the database is.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A file of SQLite: one origin, alone.
    File(PathBuf),
    /// A database of PostgreSQL, which several origins may share.
    Postgres(Url),
}

/// Neither a path nor an address of PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum IllegalPlace {
    /// Nothing is there.
    #[error("a database is a path or a postgres:// URL; this is empty")]
    Empty,
    /// Another kind of database.
    #[error(
        "{scheme}:// is no kind of database that origin knows: name a file or a postgres:// URL"
    )]
    Scheme {
        /// What it says.
        scheme: String,
    },
    /// Not readable as a URL. What it says is left out, for the password's sake.
    #[error("the postgres:// URL of the database cannot be read")]
    Url(#[source] url::ParseError),
    /// No database is named.
    #[error("the postgres:// URL names no database: postgres://user:password@host/database")]
    NoDatabase,
}

impl std::str::FromStr for Place {
    type Err = IllegalPlace;

    fn from_str(text: &str) -> Result<Self, IllegalPlace> {
        if text.is_empty() {
            return Err(IllegalPlace::Empty);
        }
        match text.split_once("://") {
            None => Ok(Self::File(text.into())),
            Some(("postgres" | "postgresql", _)) => {
                let url = Url::parse(text).map_err(IllegalPlace::Url)?;
                let named =
                    url.path().len() > 1 || url.query_pairs().any(|(key, _)| key == "dbname");
                if !named {
                    return Err(IllegalPlace::NoDatabase);
                }
                Ok(Self::Postgres(url))
            }
            Some((scheme, _)) => Err(IllegalPlace::Scheme {
                scheme: scheme.to_owned(),
            }),
        }
    }
}

impl Place {
    /// Whether several origins may use it at a time, so that one has to lead.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// As a driver wants it.
    pub(super) fn url(&self, mode: &str) -> String {
        match self {
            Self::Postgres(url) => url.to_string(),
            Self::File(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                let encoded = Url::from_file_path(&path)
                    .map_or_else(|()| path.display().to_string(), |url| url.path().to_owned());
                format!("sqlite://{encoded}?mode={mode}")
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => write!(f, "{}", hidden(url)),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<&PathBuf> for Place {
    fn from(path: &PathBuf) -> Self {
        Self::File(path.clone())
    }
}

impl From<&Self> for Place {
    fn from(place: &Self) -> Self {
        place.clone()
    }
}

/// The URL without its password, wherever it stands.
fn hidden(url: &Url) -> Url {
    let mut shown = url.clone();
    if shown.password().is_some() {
        // Refused only where there is no host, and then there is no password either.
        let _ = shown.set_password(Some(HIDDEN));
    }
    let pairs: Vec<(String, String)> = url
        .query_pairs()
        .map(|(key, value)| {
            let value = if key.to_ascii_lowercase().contains("password") {
                HIDDEN.into()
            } else {
                value
            };
            (key.into_owned(), value.into_owned())
        })
        .collect();
    if !pairs.is_empty() {
        shown.query_pairs_mut().clear().extend_pairs(pairs);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (text, shown) in [
            (
                "postgres://helix:s3cret@db.example:5433/origin?sslmode=require",
                "postgres://helix:***@db.example:5433/origin?sslmode=require",
            ),
            (
                "postgresql://helix@db/origin?password=s3cret&host=%2Frun%2Fpg",
                "postgresql://helix@db/origin?password=***&host=%2Frun%2Fpg",
            ),
            ("postgres://helix@db/origin", "postgres://helix@db/origin"),
            ("/var/lib/helix/origin.db", "/var/lib/helix/origin.db"),
        ] {
            let place: Place = text.parse().unwrap();
            assert_eq!(place.to_string(), shown);
            assert_eq!(format!("{place:?}"), format!("Place({shown})"));
            assert_eq!(serde_json::to_string(&place).unwrap(), format!("{shown:?}"));
            assert_eq!(place.is_shared(), text.starts_with("postgres"));
        }
    }

    #[test]
    fn what_is_no_place_is_refused_and_not_repeated() {
        for (text, error) in [
            ("", "this is empty"),
            ("mysql://u:s3cret@h/d", "mysql:// is no kind of database"),
            ("postgres://u:s3cret@h:port/d", "cannot be read"),
            ("postgres://u:s3cret@h", "names no database"),
        ] {
            let refused = text.parse::<Place>().unwrap_err().to_string();
            assert!(refused.contains(error), "{refused}");
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }

    #[test]
    fn a_path_may_hold_what_a_url_may_not() {
        let place = Place::File("/a b/?x#y%/origin.db".into());
        assert_eq!(
            place.url("rwc"),
            "sqlite:///a%20b/%3Fx%23y%25/origin.db?mode=rwc"
        );
    }
}
