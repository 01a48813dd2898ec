//! What of a `package.json` matters for building.
//!
//! Pure. A field of the wrong shape counts as left out: package managers say more about it than we could.

use std::collections::BTreeSet;

use serde_json::Value;

/// A `package.json`.
#[derive(Clone, Debug, Default)]
pub(super) struct Manifest(Value);

impl Manifest {
    /// Reads one; the reason if it is no JSON.
    ///
    /// # Errors
    /// What the parser says, with line and column.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        serde_json::from_str(text)
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// Its name.
    #[must_use]
    pub(super) fn name(&self) -> Option<&str> {
        self.0["name"].as_str()
    }

    /// Packages that it depends on, for whatever.
    #[must_use]
    pub(super) fn packages(&self) -> BTreeSet<String> {
        ["dependencies", "devDependencies", "optionalDependencies"]
            .iter()
            .filter_map(|field| self.0[field].as_object())
            .flat_map(|packages| packages.keys().cloned())
            .collect()
    }

    /// A script's shell line.
    #[must_use]
    pub(super) fn script(&self, name: &str) -> Option<&str> {
        self.0["scripts"][name]
            .as_str()
            .filter(|line| !line.trim().is_empty())
    }

    /// A text below `fields`, one within the other.
    #[must_use]
    pub(super) fn text(&self, fields: &[&str]) -> Option<&str> {
        let value = fields.iter().fold(&self.0, |value, field| &value[field]);
        value
            .as_str()
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }

    /// The patterns of its workspaces, in both ways of writing them.
    #[must_use]
    pub(super) fn workspaces(&self) -> Option<Vec<String>> {
        let listed = &self.0["workspaces"];
        let patterns = listed
            .as_array()
            .or_else(|| listed["packages"].as_array())?;
        Some(
            patterns
                .iter()
                .filter_map(|pattern| pattern.as_str().map(str::to_owned))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_shapes_count_as_left_out() {
        let manifest = Manifest::read(
            r#"{"scripts": [], "dependencies": "x", "engines": {"node": 20}, "workspaces": 1}"#,
        )
        .unwrap();
        assert!(manifest.packages().is_empty() && manifest.script("build").is_none());
        assert_eq!(manifest.text(&["engines", "node"]), None);
        assert_eq!(manifest.workspaces(), None);
        assert!(Manifest::read("[]").unwrap().name().is_none());
        assert!(Manifest::read("{").is_err());
    }
}
