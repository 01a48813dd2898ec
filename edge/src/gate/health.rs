//! Pure: the two messages of a gRPC health check, and the frame around them.
//!
//! `HealthCheckRequest { string service = 1 }` and `HealthCheckResponse { ServingStatus status = 1 }`
//! (grpc/health/v1/health.proto), each behind a byte of flags and four of length.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};

/// How a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Unknown,
    Serving,
    NotServing,
    ServiceUnknown,
    Other(u64),
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("UNKNOWN"),
            Self::Serving => f.write_str("SERVING"),
            Self::NotServing => f.write_str("NOT_SERVING"),
            Self::ServiceUnknown => f.write_str("SERVICE_UNKNOWN"),
            Self::Other(number) => write!(f, "in state {number}, which no gRPC health check has"),
        }
    }
}

/// The request about `service`, framed.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // Field 1, length-delimited.
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(&message);
    frame.freeze()
}

/// What a framed response says.
///
/// # Errors
/// When it is none.
pub(super) fn health(frame: &[u8]) -> Result<Health, &'static str> {
    let Some((&[flags, a, b, c, d], message)) = frame.split_first_chunk::<5>() else {
        return Err("answered without a message");
    };
    if flags != 0 {
        return Err("answered compressed, which was not asked for");
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let message = message
        .get(..length)
        .ok_or("answered with half a message")?;
    let status = status(message).ok_or("answered with a malformed message")?;
    Ok(match status {
        0 => Health::Unknown,
        1 => Health::Serving,
        2 => Health::NotServing,
        3 => Health::ServiceUnknown,
        other => Health::Other(other),
    })
}

/// Field 1 of a message; 0 where it is left out, and the last where it is there twice.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skipped = match (tag >> 3, tag & 7) {
            (1, 0) => {
                status = varint(&mut message)?;
                0
            }
            (_, 0) => {
                varint(&mut message)?;
                0
            }
            (_, 1) => 8,
            (_, 2) => usize::try_from(varint(&mut message)?).ok()?,
            (_, 5) => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.put_u8(u8::try_from(value).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_names_its_service() {
        assert_eq!(request("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(request("ab").as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
        assert_eq!(long.len(), 5 + 303);
    }

    #[test]
    fn a_response_says_how_a_service_is() {
        for (frame, said) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Ok(Health::Serving)),
            (&[0, 0, 0, 0, 0], Ok(Health::Unknown)),
            (&[0, 0, 0, 0, 2, 8, 2], Ok(Health::NotServing)),
            (&[0, 0, 0, 0, 2, 8, 3], Ok(Health::ServiceUnknown)),
            (&[0, 0, 0, 0, 3, 8, 0x80, 1], Ok(Health::Other(128))),
            // Fields that a later version may have.
            (&[0, 0, 0, 0, 6, 0x12, 2, 9, 9, 8, 1], Ok(Health::Serving)),
            (
                &[0, 0, 0, 0, 7, 0x15, 1, 2, 3, 4, 8, 1],
                Ok(Health::Serving),
            ),
            (&[], Err("answered without a message")),
            (&[0, 0, 0, 0, 3, 8, 1], Err("answered with half a message")),
            (
                &[1, 0, 0, 0, 2, 8, 1],
                Err("answered compressed, which was not asked for"),
            ),
            (
                &[0, 0, 0, 0, 1, 8],
                Err("answered with a malformed message"),
            ),
            (
                &[0, 0, 0, 0, 2, 0x0f, 1],
                Err("answered with a malformed message"),
            ),
        ] {
            assert_eq!(health(frame), said, "{frame:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = health(&bytes);
        }
    }
}
