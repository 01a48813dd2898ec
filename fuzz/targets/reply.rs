//! Response heads: clean, framed as their fields say, and the same when they are written and read again.
#![no_main]

use bytes::Bytes;
use helix_framing::limits::MAX_HEADERS;
use helix_framing::{HeadScan, Reply, ReplyBody, Scan, parse_reply, write_head};
use helix_fuzz::{assert_clean, lines};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let bodiless = kind % 2 == 1;
    let Ok(Scan::Complete(length)) = HeadScan::default().look(bytes) else {
        return;
    };
    let head = Bytes::copy_from_slice(&bytes[..length]);
    let Ok(reply) = parse_reply(&head, bodiless) else {
        return;
    };
    assert_clean(&head);
    is_framed_by_its_fields(&reply, &head, bodiless);
    is_the_same_again(&reply, bodiless);
});

fn is_framed_by_its_fields(reply: &Reply, head: &[u8], bodiless: bool) {
    let status = reply.status.as_u16();
    assert!((100..600).contains(&status) && reply.headers().len() <= MAX_HEADERS);
    assert!(!reply.headers().contains_key(TRANSFER_ENCODING));
    let is_chunked = lines(head)
        .iter()
        .any(|line| line.to_ascii_lowercase().starts_with(b"transfer-encoding:"));
    let length = reply.headers().get(CONTENT_LENGTH).map(|value| {
        value
            .to_str()
            .expect("digits")
            .parse::<u64>()
            .expect("a number")
    });
    assert!(!is_chunked || length.is_none(), "two lengths");
    assert_eq!(reply.length, length);
    let expected = match (is_chunked, length) {
        _ if bodiless || status < 200 || matches!(status, 204 | 304) => ReplyBody::None,
        (true, _) => ReplyBody::Chunked,
        (false, Some(0)) => ReplyBody::None,
        (false, Some(length)) => ReplyBody::Length(length),
        (false, None) => ReplyBody::UntilClose,
    };
    assert_eq!(reply.body, expected);
    assert!(!reply.persists || reply.body != ReplyBody::UntilClose);
}

fn is_the_same_again(reply: &Reply, bodiless: bool) {
    let mut written = Vec::new();
    write_head(
        &mut written,
        reply.status,
        &reply.headers(),
        b"Sun, 06 Nov 1994 08:49:37 GMT",
    );
    written.extend_from_slice(b"\r\n");
    assert_eq!(
        HeadScan::default().look(&written),
        Ok(Scan::Complete(written.len()))
    );
    let Ok(again) = parse_reply(&Bytes::from(written), bodiless) else {
        // The date may be one field too many.
        return assert_eq!(reply.headers().len(), MAX_HEADERS);
    };
    assert_eq!(again.status, reply.status);
    if reply.body != ReplyBody::Chunked {
        assert_eq!(again.body, reply.body);
    }
    let mut headers = reply.headers();
    headers.remove(CONNECTION);
    let mut of_again = again.headers();
    if !headers.contains_key(DATE) {
        of_again.remove(DATE);
    }
    assert_eq!(of_again, headers);
}
