//! What must not be seen of a build: its secret variables, and the access to its source.
//!
//! *Pure*.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use helix_routing::api::{BuildJob, Trust};

use crate::log::mask::Mask;

/// What the access to a repository is called where it is hidden.
const ACCESS: &str = "repository access";

/// Everything of a job that is hidden.
pub(super) fn mask(job: &BuildJob) -> Mask {
    let secrets = job.env.iter().filter(|(_, variable)| variable.secret);
    let mut hidden: Vec<(String, String)> = secrets
        .map(|(name, variable)| (name.clone(), variable.value.clone()))
        .collect();
    for value in job
        .source
        .authorization
        .iter()
        .flat_map(|value| parts(value))
    {
        hidden.push((ACCESS.to_owned(), value));
    }
    Mask::new(
        hidden
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    )
}

/// Variables that the build is given. Of somebody else's code none is a secret, whatever a job says.
pub(super) fn variables(job: &BuildJob) -> impl Iterator<Item = (&String, &String)> {
    let is_given = |secret: bool| match job.trust {
        Trust::Fork => !secret,
        Trust::Branch | Trust::Default => true,
    };
    job.env
        .iter()
        .filter(move |(_, variable)| is_given(variable.secret))
        .map(|(name, variable)| (name, &variable.value))
}

/// The header's value, what follows the scheme, and the password in it.
fn parts(value: &str) -> Vec<String> {
    let mut parts = vec![value.to_owned()];
    let Some((scheme, rest)) = value.split_once(' ') else {
        return parts;
    };
    parts.push(rest.to_owned());
    if scheme.eq_ignore_ascii_case("basic")
        && let Some(text) = STANDARD
            .decode(rest)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
        && let Some((_, password)) = text.split_once(':')
    {
        parts.push(password.to_owned());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hidden_by_itself_too() {
        let header = format!("Basic {}", STANDARD.encode("x-access-token:ghs_hunter22"));
        assert_eq!(parts(&header)[2], "ghs_hunter22");
        assert_eq!(parts("Bearer abc")[1], "abc");
        assert_eq!(parts("opaque").len(), 1);
    }
}
