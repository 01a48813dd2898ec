//! Numbers, addresses and what clients sent, as text at the end of a line.
//!
//! Nothing is allocated but what the line itself grows by; `fmt` is used only where it is rare.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Two digits for each number below a hundred.
const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// `number` in decimal.
pub(super) fn number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    while number >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(pair(number % 100));
        number /= 100;
    }
    if number > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b'0' + low(number);
    } else if digits[at] == b'0' {
        // The first pair of a number with an odd count of digits.
        at += 1;
    }
    out.extend_from_slice(&digits[at..]);
}

/// A time in seconds, to the microsecond.
pub(super) fn seconds(out: &mut Vec<u8>, took: Duration) {
    number(out, took.as_secs());
    let micros = u64::from(took.subsec_micros());
    let mut fraction = *b".000000";
    fraction[1..3].copy_from_slice(pair(micros / 10_000));
    fraction[3..5].copy_from_slice(pair(micros / 100));
    fraction[5..7].copy_from_slice(pair(micros));
    out.extend_from_slice(&fraction);
}

/// An address without its port. One of IPv4 is written as such whatever socket it came by.
pub(super) fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            number(out, first.into());
            for octet in rest {
                out.push(b'.');
                number(out, octet.into());
            }
        }
        // A vector takes everything.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// An address with its port.
pub(super) fn socket(out: &mut Vec<u8>, socket: SocketAddr) {
    let address = SocketAddr::new(socket.ip().to_canonical(), socket.port());
    // A vector takes everything.
    drop(write!(out, "{address}"));
}

/// What a client sent, within the quotes of a JSON string. Text in UTF-8 stays what it is; in any other every byte
/// stands for the character of its number, as fields of HTTP once were meant (RFC 9110 5.5).
pub(super) fn json(out: &mut Vec<u8>, sent: &[u8]) {
    if is_plain(sent) {
        return out.extend_from_slice(sent);
    }
    match std::str::from_utf8(sent) {
        Ok(text) => text.chars().for_each(|c| character(out, c)),
        Err(_) => sent.iter().for_each(|byte| character(out, (*byte).into())),
    }
}

fn character(out: &mut Vec<u8>, c: char) {
    match c {
        '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
        // Those between 0x7f and 0x9f could do something to a terminal.
        c if c.is_control() => {
            let [high, low] = hex(c as u8);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// What a client sent, as nginx escapes it: `\xHH` for whatever could end the quotes or the line, and for all that is
/// not ASCII.
pub(super) fn combined(out: &mut Vec<u8>, sent: &[u8]) {
    if is_plain(sent) {
        return out.extend_from_slice(sent);
    }
    for byte in sent {
        if is_plain(&[*byte]) {
            out.push(*byte);
        } else {
            let [high, low] = hex(*byte);
            out.extend_from_slice(&[b'\\', b'x', high, low]);
        }
    }
}

/// Whether all of it can stand between quotes as it is: ASCII that shows, without `"` and `\`.
fn is_plain(bytes: &[u8]) -> bool {
    let odd =
        |byte: &u8| u8::from(!(0x20..0x7f).contains(byte) | (*byte == b'"') | (*byte == b'\\'));
    // Sixteen at a time, so that they are looked at together.
    let (whole, rest) = bytes.as_chunks::<16>();
    whole
        .iter()
        .all(|part| part.iter().fold(0, |found, byte| found | odd(byte)) == 0)
        && rest.iter().fold(0, |found, byte| found | odd(byte)) == 0
}

fn hex(byte: u8) -> [u8; 2] {
    [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]
}

/// The last two digits.
pub(super) fn pair(number: u64) -> &'static [u8] {
    let at = usize::from(low(number % 100)) * 2;
    &PAIRS[at..at + 2]
}

/// The lowest byte of what is less than 256.
pub(super) const fn low(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_they_are(any in any::<u64>(), shift in 0u32..64) {
            let any = any >> shift;
            prop_assert_eq!(written(|out| number(out, any)), any.to_string());
        }

        #[test]
        fn seconds_are_written_to_the_microsecond(micros in any::<u64>()) {
            let took = Duration::from_micros(micros);
            let expected = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            prop_assert_eq!(written(|out| seconds(out, took)), expected);
        }

        #[test]
        fn what_was_sent_comes_back_out_of_json(sent in prop::collection::vec(any::<u8>(), 0..80)) {
            let line = format!("\"{}\"", written(|out| json(out, &sent)));
            let expected = String::from_utf8(sent.clone())
                .unwrap_or_else(|_| sent.iter().map(|byte| char::from(*byte)).collect());
            prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), expected);
            prop_assert!(!line.chars().any(char::is_control));
        }

        #[test]
        fn what_was_sent_comes_back_out_of_combined(sent in prop::collection::vec(any::<u8>(), 0..80)) {
            let line = written(|out| combined(out, &sent));
            prop_assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"'), "{}", line);
            let mut parts = line.split("\\x");
            let mut back = parts.next().unwrap().as_bytes().to_vec();
            for part in parts {
                back.push(u8::from_str_radix(&part[..2], 16).unwrap());
                back.extend_from_slice(&part.as_bytes()[2..]);
            }
            prop_assert_eq!(back, sent);
        }
    }

    #[test]
    fn numbers_at_their_bounds_are_written_as_they_are() {
        for any in [0, 1, 9, 10, 99, 100, 101, 999, 1000, 65535, u64::MAX] {
            assert_eq!(written(|out| number(out, any)), any.to_string());
        }
    }

    #[test]
    fn addresses_are_written_as_people_write_them() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:10.0.255.1", "10.0.255.1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            let address_of = |text: &str| text.parse::<IpAddr>().unwrap();
            assert_eq!(
                written(|out| super::address(out, address_of(address))),
                expected
            );
        }
        let of_ipv6 = "[2001:db8::1]:443".parse().unwrap();
        assert_eq!(written(|out| socket(out, of_ipv6)), "[2001:db8::1]:443");
    }
}
