//! Which fields of `_headers` belong to an answer that is not the file they were written for.
//!
//! Pure. How long a file may be kept, and what it is, says nothing of its absence or of a redirect; what a
//! browser may do with an answer holds for every answer.

use http::HeaderName;

/// Fields that tell of a file: its type, how long it may be kept, what belongs to it.
const OF_A_FILE: &[&str] = &[
    "cache-control",
    "cache-tag",
    "cache-groups",
    "content-description",
    "content-disposition",
    "content-language",
    "content-location",
    "content-type",
    "expires",
    "link",
    "pragma",
    "refresh",
    "repr-digest",
    "sourcemap",
    "surrogate-control",
    "surrogate-key",
];

/// Whether a field that rules give a file goes with what is answered instead of it, too.
#[must_use]
pub fn goes_beside(name: &HeaderName) -> bool {
    let name = name.as_str();
    !OF_A_FILE.contains(&name) && !name.ends_with("cdn-cache-control")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_may_do_holds_for_every_answer_and_what_a_file_is_does_not() {
        for (name, expected) in [
            ("access-control-allow-origin", true),
            ("content-security-policy", true),
            ("strict-transport-security", true),
            ("vary", true),
            ("x-frame-options", true),
            ("cache-control", false),
            ("cdn-cache-control", false),
            ("netlify-cdn-cache-control", false),
            ("content-type", false),
            ("link", false),
        ] {
            assert_eq!(
                goes_beside(&HeaderName::from_static(name)),
                expected,
                "{name}"
            );
        }
    }
}
