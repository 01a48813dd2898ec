//! W3C Trace Context: which trace a request belongs to, and a new one where none is passed on.
//!
//! Pure. The edge takes no part in traces: it sends a `traceparent` on as it came, so that the server behind it sees its
//! caller. One that is malformed, or there twice, is dropped with its `tracestate`, and another begun (3.2.2, 4.3 of the
//! recommendation).

use http::{HeaderMap, HeaderName, HeaderValue};

/// Names the request's parent.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Length of what version 00 is: version, trace, parent and flags with three dashes.
const LENGTH: usize = 55;

/// Under which name an operator finds a trace: 32 hexadecimal digits.
pub type TraceId = [u8; 32];

/// The `traceparent` that may be passed on, if there is one.
#[must_use]
pub fn parent(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut given = headers.get_all(&TRACEPARENT).iter();
    let parent = given.next()?;
    (given.next().is_none() && id(parent.as_bytes()).is_some()).then_some(parent)
}

/// The name of the trace in a `traceparent` that may be passed on.
#[must_use]
pub fn id(parent: &[u8]) -> Option<TraceId> {
    let (known, rest) = parent.split_at_checked(LENGTH)?;
    let digits = |part: &[u8]| {
        part.iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let named = |part: &[u8]| digits(part) && part.iter().any(|digit| *digit != b'0');
    let (version, trace, span, flags) = (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let dashed = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    // A later version may say more behind what all have (4.3).
    let ends = rest.is_empty() || version != b"00" && rest[0] == b'-';
    let whole = dashed && ends && digits(version) && version != b"ff" && digits(flags);
    (whole && named(trace) && named(span)).then(|| trace.try_into().ok())?
}

/// A trace of this name that begins here, and its `traceparent`.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// Its name.
    pub id: TraceId,
    /// The parent of what is sent on. It asks nobody to record anything.
    pub parent: [u8; LENGTH],
}

/// Begins a trace, of two random numbers.
#[must_use]
pub fn begin((trace, span): (u128, u64)) -> Begun {
    // Zero means none.
    let (trace, span) = (trace.max(1).to_be_bytes(), span.max(1).to_be_bytes());
    let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let mut id = [0; 32];
    write_digits(&mut id, &trace);
    parent[3..35].copy_from_slice(&id);
    write_digits(&mut parent[36..52], &span);
    Begun { id, parent }
}

fn write_digits(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_parent_is_what_the_recommendation_says() {
        for good in [
            TRACE.to_owned(),
            TRACE.replace("-01", "-00"),
            TRACE.replacen("00", "cc", 1),
            format!(
                "{}-what-the-future-will-be-like",
                TRACE.replacen("00", "01", 1)
            ),
        ] {
            assert_eq!(
                id(good.as_bytes()),
                Some(*b"0af7651916cd43dd8448eb211c80319c"),
                "{good}"
            );
        }
        for bad in [
            String::new(),
            "00".to_owned(),
            TRACE.to_uppercase(),
            TRACE.replacen("00", "ff", 1),
            TRACE.replacen("00", "0g", 1),
            TRACE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            TRACE.replace("b7ad6b7169203331", &"0".repeat(16)),
            TRACE.replace("-01", "-0x"),
            TRACE.replace("-01", "_01"),
            format!("{TRACE}-more"),
            format!("{}.more", TRACE.replacen("00", "01", 1)),
            TRACE[..54].to_owned(),
            format!(" {TRACE}"),
        ] {
            assert_eq!(id(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(parent(&headers), None);
        headers.append(&TRACEPARENT, HeaderValue::from_static(TRACE));
        assert_eq!(parent(&headers), Some(&HeaderValue::from_static(TRACE)));
        headers.append(&TRACEPARENT, HeaderValue::from_static(TRACE));
        assert_eq!(parent(&headers), None);
    }

    proptest! {
        #[test]
        fn what_begins_here_may_be_passed_on(trace in any::<u128>(), span in any::<u64>()) {
            for fresh in [(trace, span), (0, 0)] {
                let begun = begin(fresh);
                prop_assert_eq!(id(&begun.parent), Some(begun.id));
            }
        }

        #[test]
        fn any_bytes_are_a_parent_or_not(sent in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(id(&sent).is_none_or(|id| sent[3..35] == id));
        }
    }
}
