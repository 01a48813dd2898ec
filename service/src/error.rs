//! Pure. Errors as people read them.

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| (*error).source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("write a record")]
    struct Outer(#[source] io::Error);

    #[test]
    fn causes_follow_what_was_attempted() {
        let cause = io::Error::other("disk full");
        assert_eq!(chain(&Outer(cause)), "write a record: disk full");
    }
}
