//! Why a request head is refused, and the response that says so.
//!
//! Every refusal ends the connection: after bytes that cannot be framed, nothing can be trusted.

use std::time::SystemTime;

use http::StatusCode;

/// Why a request head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Longer than [`crate::limits::MAX_HEAD_BYTES`].
    #[error("the request head is too large")]
    HeadTooLarge,
    /// More fields than [`crate::limits::MAX_HEADERS`].
    #[error("the request has too many header fields")]
    TooManyHeaders,
    /// Longer than [`crate::limits::MAX_TARGET_BYTES`].
    #[error("the request target is too long")]
    TargetTooLong,
    /// Took longer than whoever reads it waits.
    #[error("the request head took too long")]
    HeadTooSlow,
    /// CR without LF, or LF without CR.
    #[error("a line does not end with CR LF")]
    LineEnding,
    /// Not `method SP target SP version`.
    #[error("the request line is malformed")]
    RequestLine,
    /// No HTTP version of this protocol.
    #[error("the HTTP version is not supported")]
    Version,
    /// CONNECT is not offered.
    #[error("the method CONNECT is not offered")]
    Connect,
    /// The target is in no form that this edge answers.
    #[error("the request target is malformed")]
    Target,
    /// A field's name.
    #[error("a header field name is malformed")]
    FieldName,
    /// A field's value, a fold among them.
    #[error("a header field value is malformed")]
    FieldValue,
    /// None, more than one, or not a host.
    #[error("the request needs exactly one valid Host")]
    Host,
    /// More than one, or not a plain number.
    #[error("the Content-Length is malformed")]
    ContentLength,
    /// Anything but one `chunked`, or in HTTP/1.0.
    #[error("the Transfer-Encoding is not supported")]
    TransferEncoding,
    /// Both lengths at once.
    #[error("the request has both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// In a way that whoever frames the protocol does not tell: HTTP/2 and HTTP/3 end a stream or a connection then.
    #[error("the request head is malformed")]
    Malformed,
    /// For a host that the certificate of this connection does not cover.
    #[error("this connection is for other hosts")]
    Misdirected,
}

impl Refusal {
    /// The status that tells the client.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::HeadTooLarge | Self::TooManyHeaders => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::LineEnding
            | Self::RequestLine
            | Self::Target
            | Self::FieldName
            | Self::FieldValue
            | Self::Host
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::TwoLengths
            | Self::Malformed => StatusCode::BAD_REQUEST,
        }
    }

    /// One word for the metric.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyHeaders => "too_many_headers",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooSlow => "head_too_slow",
            Self::LineEnding => "line_ending",
            Self::RequestLine => "request_line",
            Self::Version => "version",
            Self::Connect => "connect",
            Self::Target => "target",
            Self::FieldName => "field_name",
            Self::FieldValue => "field_value",
            Self::Host => "host",
            Self::ContentLength => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::TwoLengths => "two_lengths",
            Self::Malformed => "malformed",
            Self::Misdirected => "misdirected",
        }
    }

    /// The whole response, for a connection that closes after it.
    #[must_use]
    pub fn response(self, now: SystemTime) -> Vec<u8> {
        let body = format!("{self}\n");
        let allow = if self == Self::Connect {
            "allow: GET, HEAD, OPTIONS\r\n"
        } else {
            ""
        };
        format!(
            "HTTP/1.1 {status}\r\ndate: {date}\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n{allow}\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}",
            status = self.status(),
            date = httpdate::fmt_http_date(now),
            length = body.len(),
        )
        .into_bytes()
    }
}
