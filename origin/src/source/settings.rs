//! How a project is built, as far as origin can say whether that makes sense. Pure.

use helix_routing::api::BuildSettings;

/// Longest line that is run, in bytes.
const MAX_LINE: usize = 4 * 1024;
/// Longest folder, in bytes.
const MAX_FOLDER: usize = 500;

/// A setting cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct InvalidSettings {
    what: &'static str,
    problem: &'static str,
}

/// Checks settings: folders stay within the repository, lines are lines.
///
/// # Errors
/// At the first that cannot be.
pub fn check(settings: &BuildSettings) -> Result<(), InvalidSettings> {
    for (what, folder) in [("root", &settings.root), ("output", &settings.output)] {
        if !folder.as_deref().is_none_or(is_folder) {
            let problem = "is a folder within the repository, relative and without `..`";
            return Err(InvalidSettings { what, problem });
        }
    }
    let lines = [
        ("install", &settings.install),
        ("build", &settings.build),
        ("start", &settings.start),
    ];
    for (what, line) in lines {
        let is_line = |line: &str| line.len() <= MAX_LINE && !line.contains('\0');
        if !line.as_deref().is_none_or(is_line) {
            let problem = "is a shell line of at most 4096 bytes";
            return Err(InvalidSettings { what, problem });
        }
    }
    let is_name = |name: &str| {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        (1..=60).contains(&name.len()) && name.chars().all(legal)
    };
    if !settings.framework.as_deref().is_none_or(is_name) {
        let problem = "is a name of 1 to 60 of a-z, 0-9, - and .";
        return Err(InvalidSettings {
            what: "framework",
            problem,
        });
    }
    Ok(())
}

fn is_folder(text: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "..");
    let is_odd = |c: char| c.is_control() || c == '\\';
    text == "."
        || (!text.is_empty()
            && text.len() <= MAX_FOLDER
            && !text.starts_with(['/', '-'])
            && !text.chars().any(is_odd)
            && text.trim_end_matches('/').split('/').all(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_stay_within_the_repository() {
        let with = |root: &str| {
            check(&BuildSettings {
                root: Some(root.to_owned()),
                ..BuildSettings::default()
            })
        };
        for root in [".", "web", "apps/web", "apps/web/", "a.b/c-d"] {
            assert!(with(root).is_ok(), "{root}");
        }
        for root in ["", "/", "/etc", "..", "a/../b", "a//b", "-x", "a\\b", "a\0"] {
            assert!(with(root).is_err(), "{root}");
        }
    }

    #[test]
    fn lines_may_be_empty_and_have_an_end() {
        let with = |build: String| {
            check(&BuildSettings {
                build: Some(build),
                ..BuildSettings::default()
            })
        };
        assert!(with(String::new()).is_ok());
        assert!(with("npm run build && cp -r a b".to_owned()).is_ok());
        assert!(with("x".repeat(MAX_LINE + 1)).is_err());
        assert!(with("a\0b".to_owned()).is_err());
        let refused = check(&BuildSettings {
            start: Some("a\0b".to_owned()),
            ..BuildSettings::default()
        });
        assert!(refused.unwrap_err().to_string().starts_with("start: "));
    }
}
