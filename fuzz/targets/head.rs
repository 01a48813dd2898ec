//! Request heads: found at the same place however their bytes arrive, read as their lines say, and let through by the
//! gate with exactly their body.
#![no_main]

use helix_framing::{Chunks, Framing, Gate, Head, HeadScan, Refusal, Scan, parse};
use helix_fuzz::{Pieces, assert_clean, lines};
use libfuzzer_sys::fuzz_target;

const OLDER: &[u8] =
    b"POST http://a.example/x?y HTTP/1.0\r\nHost: a.example\r\nContent-Length: 3\r\nUpgrade: b\r\n\
    Connection: upgrade, keep-alive\r\nTE: trailers\r\nExpect: 100-continue\r\nCookie: c\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let Some(pieces) = Pieces::of(input) else {
        return;
    };
    let found = HeadScan::default().look(pieces.bytes);
    assert_eq!(in_pieces(pieces), found);
    let Ok(Scan::Complete(length)) = found else {
        return;
    };
    let bytes = &pieces.bytes[..length];
    let parsed = parse(bytes);
    let mut older = parse(OLDER).expect("it is legal");
    let again = older.read(bytes);
    assert_eq!(
        again,
        parsed.as_ref().map(|_| ()).map_err(|refusal| *refusal)
    );
    let Ok(head) = parsed else { return };
    assert_eq!(told(&older, bytes), told(&head, bytes));
    assert_clean(bytes);
    says_what_its_lines_say(&head, bytes);
    passes_the_gate(&head, length, pieces);
});

fn in_pieces(pieces: Pieces<'_>) -> Result<Scan, Refusal> {
    let mut scan = HeadScan::default();
    for piece in pieces.ranges() {
        let found = scan.look(&pieces.bytes[..piece.end]);
        if found != Ok(Scan::More) {
            return found;
        }
    }
    scan.look(pieces.bytes)
}

/// Everything a head says, in words.
fn told(head: &Head, bytes: &[u8]) -> String {
    let fields: Vec<_> = head.fields(bytes).iter().collect();
    format!("{head:?} {fields:?}")
}

fn says_what_its_lines_say(head: &Head, bytes: &[u8]) {
    let mut lines = lines(bytes);
    assert_eq!(lines.pop(), Some(&b""[..]));
    let first = lines.remove(0);
    let version = if head.version_1_0 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    };
    let written = format!("{} {} {version}", head.method, head.target.text(bytes));
    assert_eq!(first, written.as_bytes());
    assert!(head.target.text(bytes).contains(head.path.text(bytes)));
    let fields: Vec<_> = head.fields(bytes).iter().collect();
    assert_eq!(fields.len(), lines.len());
    for (line, (name, value)) in lines.iter().zip(&fields) {
        let rest = line
            .strip_prefix(name.as_bytes())
            .and_then(|rest| rest.strip_prefix(b":"));
        assert_eq!(rest.expect("a name, then a colon").trim_ascii(), *value);
    }
    let parts = head.to_parts(&bytes.to_vec().into());
    assert_eq!(parts.headers.len(), fields.len());
    let path = head.path.text(bytes);
    assert_eq!(parts.uri.path(), if path.is_empty() { "/" } else { path });
    assert_eq!(parts.uri.query(), head.query.map(|query| query.text(bytes)));
}

fn passes_the_gate(head: &Head, length: usize, pieces: Pieces<'_>) {
    let behind = &pieces.bytes[length..];
    let body = match head.framing {
        Framing::None => Ok(0),
        Framing::Length(body) => Ok(usize::try_from(body)
            .unwrap_or(usize::MAX)
            .min(behind.len())),
        Framing::Chunked => Chunks::new().advance(behind),
    };
    let mut gate = Gate::message(length, head.framing);
    let mut passed = 0;
    for piece in pieces.ranges() {
        match gate.admit(&pieces.bytes[piece.clone()]) {
            Ok(admitted) => {
                passed += admitted;
                if admitted < piece.len() {
                    assert!(gate.is_done());
                    break;
                }
            }
            Err(error) => return assert_eq!(body, Err(error)),
        }
    }
    assert_eq!(body, Ok(passed - length));
}
