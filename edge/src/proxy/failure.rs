//! What an error of pingora means for a request.

use pingora_core::{Error, ErrorSource, ErrorType};

use crate::forward::Failure;

/// What `error` means. What failed before anything of the request left may be sent elsewhere.
pub(super) fn failure_of(error: &Error) -> Failure {
    let cause = error.to_string();
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => {
            Failure::late(cause).repeating(true)
        }
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::late(cause),
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::TLSHandshakeFailure
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => Failure::gateway(cause).repeating(true),
        _ if *error.esource() == ErrorSource::Downstream => Failure::body("broke off"),
        _ => Failure::gateway(cause),
    }
}
