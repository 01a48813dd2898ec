//! Huffman-coded strings (RFC 7541 appendix B, used by RFC 9204 4.1.2), read but never written.
//!
//! The code is canonical: the length of each symbol's code says everything, so the table holds lengths
//! only. Pure. Reading stops at a limit, so that a string cannot expand without bound.

/// How many bits the code of each byte has.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// What canonical decoding needs, by length of code.
struct Codes {
    /// The first code of this length, at the top of 32 bits.
    first: [u64; LONGEST + 1],
    /// The first code beyond this length, at the top of 32 bits.
    beyond: [u64; LONGEST + 1],
    /// Where the symbols of this length start.
    offset: [usize; LONGEST + 1],
    /// Bytes by length of code, then by value.
    symbols: [u8; 256],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut codes = Codes {
        first: [0; LONGEST + 1],
        beyond: [0; LONGEST + 1],
        offset: [0; LONGEST + 1],
        symbols: [0; 256],
    };
    let (mut code, mut placed, mut length) = (0u64, 0, SHORTEST);
    while length <= LONGEST {
        codes.first[length] = code << (32 - length);
        codes.offset[length] = placed;
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                codes.symbols[placed] = byte as u8;
                placed += 1;
                code += 1;
            }
            byte += 1;
        }
        codes.beyond[length] = code << (32 - length);
        code <<= 1;
        length += 1;
    }
    codes
}

/// Appends what `coded` says to `text`. None when it is malformed, or longer than `limit`.
pub(super) fn decode(coded: &[u8], limit: usize, text: &mut Vec<u8>) -> Option<()> {
    let mut bits = Bits {
        bytes: coded.iter(),
        held: 0,
        count: 0,
    };
    let end = text.len().saturating_add(limit);
    while let Some((byte, length)) = bits.symbol() {
        if length > bits.count {
            break;
        }
        if text.len() >= end {
            return None;
        }
        bits.held <<= length;
        bits.count -= length;
        text.push(byte);
    }
    // What is left is the start of a code that is all ones, and shorter than a byte.
    (bits.count < 8 && bits.bytes.len() == 0 && bits.held >> (64 - 8) == padding(bits.count))
        .then_some(())
}

/// This many ones at the top of a byte.
const fn padding(count: u32) -> u64 {
    (0xff00 >> count) & 0xff
}

/// Bits to be read, the next one at the top of `held`.
struct Bits<'a> {
    bytes: std::slice::Iter<'a, u8>,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// The symbol that the next bits mean, and how many it takes, which may be more than there are.
    fn symbol(&mut self) -> Option<(u8, u32)> {
        while self.count <= 56 {
            let Some(byte) = self.bytes.next() else { break };
            self.held |= u64::from(*byte) << (56 - self.count);
            self.count += 8;
        }
        if self.count == 0 {
            return None;
        }
        let window = self.held >> 32;
        let length = (SHORTEST..=LONGEST).find(|length| window < CODES.beyond[*length])?;
        let within = (window - CODES.first[length]) >> (32 - length);
        let symbol = CODES.offset[length] + usize::try_from(within).ok()?;
        let length = u32::try_from(length).ok()?;
        CODES.symbols.get(symbol).map(|byte| (*byte, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(coded: &[u8]) -> Option<String> {
        let mut text = Vec::new();
        decode(coded, 100, &mut text)?;
        String::from_utf8(text).ok()
    }

    /// The opposite, bit by bit.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let rank = CODES
                .symbols
                .iter()
                .position(|symbol| symbol == byte)
                .unwrap();
            let code =
                (CODES.first[length] >> (32 - length)) + (rank - CODES.offset[length]) as u64;
            bits += &format!("{code:0length$b}");
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes()
            .chunks(8)
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }

    #[test]
    fn the_examples_of_the_specification_are_read() {
        for (coded, expected) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            (
                "d07abe941054d444a8200595040b8166e082a62d1bff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            ("", ""),
        ] {
            let coded = hex::decode(coded).unwrap();
            assert_eq!(text(&coded).as_deref(), Some(expected));
        }
    }

    #[test]
    fn padding_that_is_long_or_holds_a_zero_and_the_end_symbol_are_refused() {
        for coded in [
            "ff",
            "f1e3c2e5f23a6ba0ab90f4ffff",
            "fe",
            "ffffffff",
            "fffffffc",
        ] {
            assert_eq!(text(&hex::decode(coded).unwrap()), None, "{coded}");
        }
    }

    #[test]
    fn a_string_beyond_the_limit_is_refused() {
        let mut text = Vec::new();
        assert_eq!(decode(&encode(&[b'a'; 101]), 100, &mut text), None);
        assert!(text.len() <= 100);
    }

    proptest! {
        #[test]
        fn every_string_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut text = Vec::new();
            prop_assert_eq!(decode(&encode(&bytes), 100, &mut text), Some(()));
            prop_assert_eq!(text, bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut text = Vec::new();
            let _ = decode(&bytes, 100, &mut text);
        }
    }
}
