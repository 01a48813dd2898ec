//! Where the frames of a WebSocket end (RFC 6455 5.2), and the frame that ends it.
//!
//! Pure. Only lengths are read, so that a frame of our own can be put between two of the server's. Nothing
//! here checks what a frame holds: that is between the two ends.

/// Why a tunnel ends that neither end has ended (RFC 6455 7.4.1, and IANA's registry of close codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// 1001: who carries it ends, or the server is silent for too long.
    GoingAway,
    /// 1012: the site is served anew, and may be connected to again.
    ServiceRestart,
}

impl Close {
    /// The frame as a server sends it.
    #[must_use]
    pub const fn as_server(self) -> &'static [u8] {
        match self {
            Self::GoingAway => &[0x88, 0x02, 0x03, 0xE9],
            Self::ServiceRestart => &[0x88, 0x02, 0x03, 0xF4],
        }
    }

    /// The frame as a client sends it: masked, which with a mask of nothing changes nothing. What a mask is to keep
    /// from happening needs bytes that somebody chose.
    #[must_use]
    pub const fn as_client(self) -> &'static [u8] {
        match self {
            Self::GoingAway => &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9],
            Self::ServiceRestart => &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xF4],
        }
    }
}

/// Longest head of a frame: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;

/// Follows one direction of a WebSocket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    head: [u8; LONGEST_HEAD],
    /// Bytes of the head that have come.
    known: usize,
    /// Bytes of the payload still to come.
    left: u64,
}

impl Frames {
    /// Whether the next byte is the first of a frame.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        self.known == 0 && self.left == 0
    }

    /// How many of `bytes`, the next ones of the connection, belong to the frame that is under way.
    /// They count as passed. After it, either all have, or a frame ends there.
    pub fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let step = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len() - at);
                self.left -= step as u64;
                at += step;
            } else {
                self.head[self.known] = bytes[at];
                self.known += 1;
                at += 1;
                let Some(payload) = payload(&self.head[..self.known]) else {
                    continue;
                };
                (self.known, self.left) = (0, payload);
            }
            if self.is_between() {
                break;
            }
        }
        at
    }

    /// Passes all of `bytes`.
    pub fn pass_all(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.pass(bytes)..];
        }
    }
}

/// The length of a frame's payload, once its whole head has come.
fn payload(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let extended = match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    if head.len() < 2 + extended + mask {
        return None;
    }
    Some(if extended == 0 {
        u64::from(second & 0x7F)
    } else {
        head[2..2 + extended]
            .iter()
            .fold(0, |length, byte| length << 8 | u64::from(*byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x82];
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..65536 => {
                bytes.push(mask | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend(std::iter::repeat_n(7, if masked { 4 } else { 0 } + length));
        bytes
    }

    #[test]
    fn the_frame_that_ends_a_websocket_is_one_frame() {
        for (close, code) in [(Close::GoingAway, 1001), (Close::ServiceRestart, 1012)] {
            for frame in [close.as_server(), close.as_client()] {
                let mut frames = Frames::default();
                assert_eq!(frames.pass(frame), frame.len());
                assert!(frames.is_between());
                let told = frame.last_chunk::<2>().unwrap();
                assert_eq!(u16::from_be_bytes(*told), code);
            }
        }
    }

    proptest! {
        #[test]
        fn frames_end_where_they_end_however_they_are_split(
            lengths in proptest::collection::vec((prop_oneof![0usize..130, 65_530usize..65_540], any::<bool>()), 1..5),
            steps in proptest::collection::vec(1usize..9000, 1..20),
        ) {
            let parts: Vec<_> = lengths.iter().map(|(length, masked)| frame(*length, *masked)).collect();
            let mut ends: Vec<usize> = parts.iter().scan(0, |at, part| { *at += part.len(); Some(*at) }).collect();
            let all = parts.concat();
            let (mut frames, mut at, mut found) = (Frames::default(), 0, Vec::new());
            for step in steps.iter().cycle() {
                if at == all.len() { break; }
                at += frames.pass(&all[at..(at + step).min(all.len())]);
                if frames.is_between() { found.push(at); }
            }
            ends.dedup();
            prop_assert_eq!(found, ends);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut frames = Frames::default();
            frames.pass_all(&bytes);
        }
    }
}
