//! Unidirectional streams of HTTP/3: judged alike in whatever pieces they arrive, and what is passed is what may be there.
#![no_main]

use bytes::Bytes;
use helix_framing::http3::{Code, Unidirectional, Verdict, put_variable, variable};
use helix_fuzz::Pieces;
use libfuzzer_sys::fuzz_target;

const CONTROL: u64 = 0x0;
const ENCODER: u64 = 0x2;
const SETTINGS: u64 = 0x4;
const GOAWAY: u64 = 0x7;
const PRIORITY_UPDATE: u64 = 0xf_0700;

fuzz_target!(|input: &[u8]| {
    let Some(pieces) = Pieces::of(input) else {
        return;
    };
    let judged = in_pieces(pieces);
    let larger = [&[u8::MAX; 4], pieces.bytes].concat();
    let larger = Pieces::of(&larger).expect("its first four bytes are there");
    assert_eq!(in_pieces(larger), judged);
    if let Ok(verdicts) = judged {
        may_be_there(pieces.bytes, &verdicts);
    }
    numbers_come_back(pieces.bytes);
});

fn in_pieces(pieces: Pieces<'_>) -> Result<Vec<Verdict>, Code> {
    let mut stream = Unidirectional::default();
    let mut verdicts = Vec::new();
    for piece in pieces.ranges() {
        let mut input = Bytes::copy_from_slice(&pieces.bytes[piece]);
        while !input.is_empty() {
            match stream.take(&mut input)? {
                Verdict::On => {}
                Verdict::Ignored => return Ok(vec![Verdict::Ignored]),
                verdict => verdicts.push(verdict),
            }
        }
    }
    Ok(verdicts)
}

fn may_be_there(mut bytes: &[u8], verdicts: &[Verdict]) {
    let Some(kind) = variable(&mut bytes) else {
        return assert!(verdicts.is_empty());
    };
    if !matches!(kind, 0x0 | 0x2 | 0x3) {
        return assert_eq!(verdicts, [Verdict::Ignored]);
    }
    assert_eq!(verdicts.first(), Some(&Verdict::Is(kind)));
    if kind == ENCODER {
        assert!(bytes.iter().all(|byte| *byte == 0x20));
    }
    let wishes = if kind == CONTROL {
        wishes(bytes)
    } else {
        Vec::new()
    };
    assert_eq!(verdicts[1..], wishes);
}

/// The wishes in a control stream, all of whose whole frames may be there.
fn wishes(mut bytes: &[u8]) -> Vec<Verdict> {
    let (mut wishes, mut goaway) = (Vec::new(), u64::MAX);
    for number in 0.. {
        let (Some(kind), Some(length)) = (variable(&mut bytes), variable(&mut bytes)) else {
            break;
        };
        assert_eq!(
            kind == SETTINGS,
            number == 0,
            "settings come first, and once"
        );
        assert!(!matches!(kind, 0x0..=0x2 | 0x5 | 0x6 | 0x8 | 0x9));
        let length = usize::try_from(length).expect("longer ones are refused");
        let Some((mut payload, rest)) = bytes.split_at_checked(length) else {
            break;
        };
        bytes = rest;
        match kind {
            GOAWAY => {
                let id = variable(&mut payload).expect("it is a number");
                assert!(payload.is_empty() && id <= goaway);
                goaway = id;
            }
            PRIORITY_UPDATE => {
                let stream = variable(&mut payload).expect("it names a stream");
                assert_eq!(stream % 4, 0);
                wishes.push(Verdict::Prioritize(stream, Bytes::copy_from_slice(payload)));
            }
            _ => {}
        }
    }
    wishes
}

fn numbers_come_back(bytes: &[u8]) {
    let Some(number) = bytes.first_chunk::<8>() else {
        return;
    };
    let number = u64::from_be_bytes(*number) >> 2;
    let mut written = bytes::BytesMut::new();
    put_variable(&mut written, number);
    let mut rest = &written[..];
    assert_eq!(variable(&mut rest), Some(number));
    assert!(rest.is_empty());
}
