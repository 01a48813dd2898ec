//! W3C Trace Context: which trace a request belongs to, and a new one where none is passed on.
//!
//! Pure. The edge takes no part in traces: it sends a `traceparent` on as it came, so that the server behind it sees its
//! caller. One that is malformed, or there twice, is dropped with its `tracestate`, and another begun (3.2.2, 4.3 of the
//! recommendation).

use http::{HeaderMap, HeaderName, HeaderValue};

/// Names the request's parent.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Length of what version 00 is: version, trace, parent and flags with three dashes.
const LENGTH: usize = 55;

/// Under which name an operator finds a trace: 32 hexadecimal digits.
pub type TraceId = [u8; 32];

/// The `traceparent` that may be passed on, if there is one.
#[must_use]
pub fn parent(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut given = headers.get_all(TRACEPARENT).iter();
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

/// The parent of what begins here, of two random numbers. It asks nobody to record anything.
#[must_use]
pub fn begun((trace, span): (u128, u64)) -> String {
    // Zero means none.
    let (trace, span) = (trace.max(1).to_be_bytes(), span.max(1).to_be_bytes());
    let (mut id, mut parent) = ([0; 32], [0; 16]);
    hex::encode_to_slice(trace, &mut id).expect("sixteen bytes are 32 digits");
    hex::encode_to_slice(span, &mut parent).expect("eight bytes are 16 digits");
    let mut begun = String::with_capacity(LENGTH);
    begun.push_str("00-");
    begun.extend(id.map(char::from));
    begun.push('-');
    begun.extend(parent.map(char::from));
    begun.push_str("-00");
    begun
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
        headers.append(TRACEPARENT, HeaderValue::from_static(TRACE));
        assert_eq!(parent(&headers), Some(&HeaderValue::from_static(TRACE)));
        headers.append(TRACEPARENT, HeaderValue::from_static(TRACE));
        assert_eq!(parent(&headers), None);
    }

    proptest! {
        #[test]
        fn what_begins_here_may_be_passed_on(trace in any::<u128>(), span in any::<u64>()) {
            for fresh in [(trace, span), (0, 0)] {
                prop_assert!(id(begun(fresh).as_bytes()).is_some());
            }
        }

        #[test]
        fn any_bytes_are_a_parent_or_not(sent in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(id(&sent).is_none_or(|id| sent[3..35] == id));
        }
    }
}
