//! Why an upstream gave no response, and which status says so (RFC 9110 15.6).

use http::StatusCode;
use pingora_core::{Error, ErrorSource, ErrorType};

/// What a request failed with.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the client is told.
    pub(super) status: StatusCode,
    /// What the log is told.
    pub(super) cause: String,
}

impl Failure {
    /// What `error` means.
    pub(super) fn of(error: &Error) -> Self {
        Self {
            status: status(error.etype(), error.esource()),
            cause: error.to_string(),
        }
    }

    /// The upstream took too long to answer.
    pub(super) fn late() -> Self {
        Self {
            status: StatusCode::GATEWAY_TIMEOUT,
            cause: "no head of a response in time".into(),
        }
    }

    /// The request's body is malformed.
    pub(super) fn body(cause: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            cause: format!("the request body {cause}"),
        }
    }

    /// pingora ended without saying why.
    pub(super) fn unknown() -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            cause: "no response".into(),
        }
    }
}

fn status(kind: &ErrorType, source: &ErrorSource) -> StatusCode {
    match kind {
        ErrorType::HTTPStatus(status) => {
            StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY)
        }
        ErrorType::ConnectTimedout
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::ReadTimedout
        | ErrorType::WriteTimedout => StatusCode::GATEWAY_TIMEOUT,
        ErrorType::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        _ if *source == ErrorSource::Downstream => StatusCode::BAD_REQUEST,
        _ => StatusCode::BAD_GATEWAY,
    }
}
