//! What this edge's own parser makes of the bytes of a case.

use bytes::Bytes;
use helix_framing::{ChunkPart, Chunks, Framing, Gate, Head, HeadScan, Scan, parse};

use super::{Message, Read, escaped};

/// The head at the start of `bytes` and how long it is, or what there is instead.
pub(super) fn head(bytes: &[u8]) -> Result<(Head, usize), Read> {
    match HeadScan::default().look(bytes) {
        Ok(Scan::More) => Err(Read::Incomplete),
        Ok(Scan::Complete(length)) => match parse(&bytes[..length]) {
            Ok(head) => Ok((head, length)),
            Err(refusal) => Err(Read::Refused(refusal.to_string())),
        },
        Err(refusal) => Err(Read::Refused(refusal.to_string())),
    }
}

/// The message at the start of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Read {
    let (head, start) = match head(bytes) {
        Ok(found) => found,
        Err(instead) => return instead,
    };
    let behind = &bytes[start..];
    let (length, body) = match head.framing {
        Framing::None => (start, Vec::new()),
        Framing::Length(length) => {
            let taken = usize::try_from(length)
                .ok()
                .and_then(|length| behind.get(..length));
            match taken {
                Some(body) => (start + body.len(), body.to_vec()),
                None => return Read::Incomplete,
            }
        }
        Framing::Chunked => match chunked(behind) {
            Ok((length, body)) => (start + length, body),
            Err(instead) => return instead,
        },
    };
    assert_eq!(Gate::message(start, head.framing).admit(bytes), Ok(length));
    let mut fields: Vec<_> = head
        .fields(&bytes[..start])
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), escaped(value)))
        .collect();
    // Stable: fields of one name stay in their order.
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    Read::Message(Message {
        length,
        method: head.method.to_string(),
        target: head.target.text(bytes).to_owned(),
        fields,
        body: escaped(&body),
    })
}

/// The same with a target of path and query alone, as whoever goes by `Host` reads it.
pub(super) fn in_origin_form(bytes: &[u8]) -> Read {
    let read = read(bytes);
    let (Read::Message(message), Ok((head, start))) = (&read, head(bytes)) else {
        return read;
    };
    let parts = head.to_parts(&Bytes::copy_from_slice(&bytes[..start]));
    Read::Message(Message {
        target: parts.uri.path_and_query().unwrap().to_string(),
        ..message.clone()
    })
}

fn chunked(bytes: &[u8]) -> Result<(usize, Vec<u8>), Read> {
    let (mut chunks, mut data, mut at) = (Chunks::new(), Vec::new(), 0);
    while !chunks.is_done() && at < bytes.len() {
        at += match chunks.part(&bytes[at..]) {
            Ok(ChunkPart::Framing(count) | ChunkPart::Trailer(count)) => count,
            Ok(ChunkPart::Data(count)) => {
                data.extend_from_slice(&bytes[at..at + count]);
                count
            }
            Err(error) => return Err(Read::Refused(error.to_string())),
        };
    }
    if chunks.is_done() {
        Ok((at, data))
    } else {
        Err(Read::Incomplete)
    }
}
