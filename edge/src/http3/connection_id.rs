//! Connection ids that say who has to read a packet: which core, and which process.
//!
//! ```text
//! core: 1 byte │ process: 2 bytes │ random: 4 bytes │ check: 3 bytes
//! ```
//!
//! The check tells ids that an edge gave out from bytes that only look like one, so that noise is
//! not passed on. It is no secret: whoever forges an id makes one packet take one step more.
//! Nothing in an id links two ids of one connection: core and process are those of thousands of others.

use std::hash::Hasher as _;
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};
use rand::RngExt as _;

/// Length of an id in bytes.
pub const CONNECTION_ID_BYTES: usize = 10;

const CHECKED: usize = 7;

/// Which process gave an id out. Two processes that share an address must not share a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessTag(pub u16);

impl ProcessTag {
    /// One that another process on this machine hardly has.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::rng().random())
    }
}

/// Who has to read a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The process.
    pub process: ProcessTag,
    /// Its core.
    pub core: u8,
}

impl Reader {
    /// Who gave out this id, if it is one of an edge.
    #[must_use]
    pub fn of(id: &[u8]) -> Option<Self> {
        let (checked, check) = id.split_at_checked(CHECKED)?;
        if check != checksum(checked) {
            return None;
        }
        Some(Self {
            core: checked[0],
            process: ProcessTag(u16::from_be_bytes([checked[1], checked[2]])),
        })
    }

    /// Who has to read this packet. None when it is the first of a connection, or of nobody known.
    ///
    /// Only what every version has alike is read (RFC 8999), and the packet type that starts connections.
    #[must_use]
    pub fn of_packet(packet: &[u8]) -> Option<Self> {
        match packet {
            [first, rest @ ..] if first & 0x80 == 0 => Self::of(rest.get(..CONNECTION_ID_BYTES)?),
            [_, _, _, _, _, length, rest @ ..] if usize::from(*length) == CONNECTION_ID_BYTES => {
                Self::of(rest.get(..CONNECTION_ID_BYTES)?)
            }
            _ => None,
        }
    }
}

/// Gives out ids for one core.
#[derive(Debug)]
pub struct ConnectionIds(pub Reader);

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        id[0] = self.0.core;
        id[1..3].copy_from_slice(&self.0.process.0.to_be_bytes());
        let random: u32 = rand::rng().random();
        id[3..CHECKED].copy_from_slice(&random.to_be_bytes());
        let check = checksum(&id[..CHECKED]);
        id[CHECKED..].copy_from_slice(&check);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The same in every process and version of the edge: they read each other's ids.
fn checksum(checked: &[u8]) -> [u8; CONNECTION_ID_BYTES - CHECKED] {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    hasher.write(checked);
    let [.., a, b, c] = hasher.finish().to_le_bytes();
    [a, b, c]
}

/// FNV-1a: of fixed output, unlike the hashers of the standard library.
struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: Reader = Reader {
        process: ProcessTag(0xbeef),
        core: 3,
    };

    #[test]
    fn a_packet_names_its_reader() {
        let id = ConnectionIds(READER).generate_cid();
        let short = [&[0x41][..], &id, b"payload"].concat();
        let long = [&[0xe0, 0, 0, 0, 1, 10][..], &id, b"rest"].concat();
        assert_eq!(Reader::of_packet(&short), Some(READER));
        assert_eq!(Reader::of_packet(&long), Some(READER));
        for packet in [&short, &long] {
            for length in 0..11 {
                assert_eq!(Reader::of_packet(&packet[..length]), None);
            }
        }
    }

    #[test]
    fn an_id_changed_in_any_bit_is_nobodys() {
        let id = ConnectionIds(READER).generate_cid();
        for bit in 0..CONNECTION_ID_BYTES * 8 {
            let mut changed = id.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Reader::of(&changed), None, "bit {bit}");
        }
    }

    #[test]
    fn ids_differ_and_are_as_later_versions_will_read_them() {
        let mut ids = ConnectionIds(READER);
        assert_ne!(ids.generate_cid(), ids.generate_cid());
        assert_eq!(hex::encode(checksum(&[3, 0xbe, 0xef, 0, 0, 0, 1])).len(), 6);
    }
}
