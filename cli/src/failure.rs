//! How a command that failed says so, and the exit code it ends with.
//!
//! A problem that origin answered with is shown by its title and detail, any other error by its chain of
//! causes. Never a raw body, never a secret.

use std::process::ExitCode;

use helix_routing::api::Problem;

use crate::output;
use helix_client::OriginError;

/// Wrong arguments, or refused.
pub(crate) const REFUSED: u8 = 1;
/// The rollout goes on without us.
pub(crate) const STILL_RUNNING: u8 = 4;
/// Only a person can decide.
pub(crate) const NEEDS_OPERATOR: u8 = 6;

/// Shows what clap found. Its own code for a mistake is 2, which here means that a release went back.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a terminal that is gone.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(REFUSED)
    } else {
        ExitCode::SUCCESS
    }
}

/// Shows an error, once.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let problem = error
        .chain()
        .find_map(|cause| match cause.downcast_ref::<OriginError>() {
            Some(OriginError::Problem(problem)) => Some(problem.as_ref()),
            _ => None,
        });
    output::say(&describe(error));
    ExitCode::from(problem.map_or(REFUSED, exit_code))
}

/// The error and its causes, each on a line of its own.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut text = String::from("error: ");
    for (depth, cause) in error.chain().enumerate() {
        if depth > 0 {
            text.push_str("\n  ");
        }
        text.push_str(&cause.to_string());
        if let Some(OriginError::Problem(problem)) = cause.downcast_ref::<OriginError>()
            && let Some(detail) = &problem.detail
        {
            text.push_str("\n  ");
            text.push_str(detail);
        }
    }
    text
}

/// Going back where there is nothing to go back to is the one refusal that needs an operator.
fn exit_code(problem: &Problem) -> u8 {
    if problem.kind.ends_with("nothing-older") {
        NEEDS_OPERATOR
    } else {
        REFUSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    fn problem(kind: &str) -> Problem {
        Problem {
            kind: kind.to_owned(),
            title: "cannot go back".to_owned(),
            status: 409,
            detail: Some("there is nothing older".to_owned()),
        }
    }

    #[test]
    fn a_problem_is_shown_by_title_and_detail() {
        let refused = OriginError::Problem(Box::new(problem("nothing-older")));
        let error = Err::<(), _>(refused).context("roll back shop").unwrap_err();
        assert_eq!(
            describe(&error),
            "error: roll back shop\n  cannot go back\n  there is nothing older"
        );
    }

    #[test]
    fn only_nothing_older_needs_an_operator() {
        assert_eq!(exit_code(&problem("nothing-older")), 6);
        assert_eq!(exit_code(&problem("unknown-release")), 1);
    }
}
