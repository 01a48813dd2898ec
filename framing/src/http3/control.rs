//! What a client sends on its unidirectional streams (RFC 9114 6.2), judged byte by byte.
//!
//! Pure. Settings and push ids are checked for what the protocol forbids and then forgotten; priorities are handed on as
//! they came.
//! No table is offered, so nothing may be put in one.

use bytes::{Buf, Bytes, BytesMut};

use super::code::Code;
use super::frames::{self, Header, is_reserved, put_variable, variable};

/// Longest frame on a control stream. Settings are a few dozen bytes, priorities of streams below a hundred.
const MAX_CONTROL_FRAME_BYTES: usize = 4096;

/// Most frames on a control stream while a connection lives. Browsers send one for each request whose
/// priority they change.
const MAX_CONTROL_FRAMES: u32 = 10_000;

/// Most bytes on the stream that acknowledges what is never sent: cancelled streams are told there.
const MAX_DECODER_BYTES: usize = 64 * 1024;

/// Most instructions that set the capacity of a table to nothing, which is what it is: one is enough.
const MAX_ENCODER_BYTES: usize = 64;

/// A unidirectional stream, as far as it has come.
#[derive(Debug, Default)]
pub struct Unidirectional(Kind);

/// What one is for.
#[derive(Debug)]
enum Kind {
    /// Not known yet.
    Unknown { header: [u8; 8], have: usize },
    /// Settings and what follows them.
    Control(Control),
    /// Instructions for a table of no size.
    Encoder { bytes: usize },
    /// Words about a table that is not used.
    Decoder { bytes: usize },
}

/// How a unidirectional stream goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is read on.
    On,
    /// It has been found out what it is; a connection has one of each.
    Is(u64),
    /// The response on a request's stream is to be sent so (RFC 9218 4).
    Prioritize(u64, Bytes),
    /// Nobody knows its type, and nobody has to.
    Ignored,
}

impl Default for Kind {
    fn default() -> Self {
        Self::Unknown {
            header: [0; 8],
            have: 0,
        }
    }
}

impl Unidirectional {
    /// Whether a connection ends with it.
    #[must_use]
    pub const fn is_critical(&self) -> bool {
        !matches!(self.0, Kind::Unknown { .. })
    }

    /// Takes the next bytes of the stream. To be called until they are used up.
    ///
    /// # Errors
    /// When the connection cannot go on.
    pub fn take(&mut self, input: &mut Bytes) -> Result<Verdict, Code> {
        if input.is_empty() {
            return Ok(Verdict::On);
        }
        self.0.take(input)
    }
}

impl Kind {
    fn take(&mut self, input: &mut Bytes) -> Result<Verdict, Code> {
        match self {
            Self::Unknown { header, have } => {
                header[*have] = input.get_u8();
                *have += 1;
                let Some(kind) = variable(&mut &header[..*have]) else {
                    return Ok(Verdict::On);
                };
                *self = match kind {
                    0x0 => Self::Control(Control::default()),
                    // Only servers push.
                    0x1 => return Err(Code::StreamCreation),
                    0x2 => Self::Encoder { bytes: 0 },
                    0x3 => Self::Decoder { bytes: 0 },
                    _ => return Ok(Verdict::Ignored),
                };
                Ok(Verdict::Is(kind))
            }
            Self::Control(control) => control.take(input),
            // To set a capacity of nothing is the one instruction that may come.
            Self::Encoder { bytes } => {
                let room = MAX_ENCODER_BYTES - *bytes;
                let now = input.split_to(room.min(input.len()));
                if now.iter().any(|byte| *byte != 0x20) {
                    return Err(Code::QpackEncoderStream);
                }
                if !input.is_empty() {
                    return Err(Code::ExcessiveLoad);
                }
                *bytes += now.len();
                Ok(Verdict::On)
            }
            Self::Decoder { bytes } => {
                *bytes += input.len();
                input.clear();
                if *bytes > MAX_DECODER_BYTES {
                    return Err(Code::ExcessiveLoad);
                }
                Ok(Verdict::On)
            }
        }
    }
}

/// Reads a control stream.
#[derive(Debug, Default)]
struct Control {
    header: Header,
    frame: Option<(u64, usize)>,
    payload: BytesMut,
    frames: u32,
    last_goaway: Option<u64>,
    last_push_id: u64,
}

impl Control {
    /// Up to the end of the next frame.
    fn take(&mut self, input: &mut Bytes) -> Result<Verdict, Code> {
        while !input.is_empty() || self.frame.is_some_and(|(_, length)| length == 0) {
            let Some((kind, length)) = self.frame else {
                if let Some((kind, length)) = self.header.take(input) {
                    self.enter(kind, length)?;
                }
                continue;
            };
            let taken = (length - self.payload.len()).min(input.len());
            self.payload.extend_from_slice(&input.split_to(taken));
            if self.payload.len() == length {
                let payload = self.payload.split();
                (self.frame, self.header) = (None, Header::default());
                return self.judge(kind, payload.freeze());
            }
        }
        Ok(Verdict::On)
    }

    fn enter(&mut self, kind: u64, length: u64) -> Result<(), Code> {
        self.frames += 1;
        match (kind, self.frames) {
            (frames::SETTINGS, 1) => {}
            (_, 1) => return Err(Code::MissingSettings),
            (frames::SETTINGS | frames::DATA | frames::HEADERS | frames::PUSH_PROMISE, _) => {
                return Err(Code::FrameUnexpected);
            }
            (kind, _) if is_reserved(kind) => return Err(Code::FrameUnexpected),
            (_, frames) if frames > MAX_CONTROL_FRAMES => return Err(Code::ExcessiveLoad),
            _ => {}
        }
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_CONTROL_FRAME_BYTES)
            .ok_or(Code::ExcessiveLoad)?;
        self.frame = Some((kind, length));
        Ok(())
    }

    fn judge(&mut self, kind: u64, whole: Bytes) -> Result<Verdict, Code> {
        let mut payload = &whole[..];
        match kind {
            frames::SETTINGS => settings(payload).map(|()| Verdict::On),
            frames::PRIORITY_UPDATE => {
                let stream = variable(&mut payload).ok_or(Code::FrameError)?;
                // Only a client's requests have responses (RFC 9218 7.2).
                if !stream.is_multiple_of(4) {
                    return Err(Code::Id);
                }
                Ok(Verdict::Prioritize(stream, whole.slice_ref(payload)))
            }
            frames::PRIORITY_UPDATE_PUSH => Err(Code::Id),
            frames::GOAWAY => {
                let id = only(&mut payload)?;
                if self.last_goaway.replace(id).is_some_and(|last| id > last) {
                    return Err(Code::Id);
                }
                Ok(Verdict::On)
            }
            frames::MAX_PUSH_ID => {
                let id = only(&mut payload)?;
                if id < self.last_push_id {
                    return Err(Code::Id);
                }
                self.last_push_id = id;
                Ok(Verdict::On)
            }
            // Nothing was ever promised.
            frames::CANCEL_PUSH => {
                only(&mut payload)?;
                Err(Code::Id)
            }
            _ => Ok(Verdict::On),
        }
    }
}

/// The one number that a frame consists of.
fn only(payload: &mut &[u8]) -> Result<u64, Code> {
    variable(payload)
        .filter(|_| payload.is_empty())
        .ok_or(Code::FrameError)
}

/// RFC 9114 7.2.4: no setting twice, none of those that HTTP/2 has.
fn settings(mut payload: &[u8]) -> Result<(), Code> {
    let mut seen = Vec::new();
    while !payload.is_empty() {
        let id = variable(&mut payload).ok_or(Code::FrameError)?;
        variable(&mut payload).ok_or(Code::FrameError)?;
        if matches!(id, 0x0 | 0x2..=0x5) || seen.contains(&id) {
            return Err(Code::Settings);
        }
        // A flood of settings makes no large list: what is beyond any use is not compared.
        if seen.len() < 64 {
            seen.push(id);
        }
    }
    Ok(())
}

/// What a server's control stream starts with: its type and the settings.
#[must_use]
pub fn opening(max_field_section: usize) -> BytesMut {
    let mut settings = BytesMut::new();
    put_variable(&mut settings, 0x6);
    put_variable(&mut settings, max_field_section as u64);
    // SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 9220 3).
    put_variable(&mut settings, 0x8);
    put_variable(&mut settings, 1);
    let mut opening = BytesMut::new();
    put_variable(&mut opening, 0x0);
    put_variable(&mut opening, frames::SETTINGS);
    put_variable(&mut opening, settings.len() as u64);
    opening.unsplit(settings);
    opening
}

/// A frame that says nothing (RFC 9114 7.2.8). It is acknowledged, so that neither side takes the connection for dead.
pub const NOTHING: &[u8] = &[0x21, 0];

/// A frame that says which requests will not be looked at any more: this one and those after it.
#[must_use]
pub fn goaway(id: u64) -> BytesMut {
    let mut payload = BytesMut::new();
    put_variable(&mut payload, id);
    let mut frame = BytesMut::new();
    put_variable(&mut frame, frames::GOAWAY);
    put_variable(&mut frame, payload.len() as u64);
    frame.unsplit(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads `bytes` as one stream, in pieces of `size`.
    fn read(bytes: &[u8], size: usize) -> Result<Vec<Verdict>, Code> {
        let mut kind = Unidirectional::default();
        let mut verdicts = Vec::new();
        for piece in bytes.chunks(size) {
            let mut input = Bytes::copy_from_slice(piece);
            while !input.is_empty() {
                match kind.take(&mut input)? {
                    Verdict::On => {}
                    Verdict::Ignored => return Ok(vec![Verdict::Ignored]),
                    verdict => verdicts.push(verdict),
                }
            }
        }
        Ok(verdicts)
    }

    const SETTINGS: [u8; 3] = [0, 4, 0];

    fn after_settings(frames: &[u8]) -> Result<Vec<Verdict>, Code> {
        for size in [1, 2] {
            assert_eq!(
                read(&[&SETTINGS, frames].concat(), size),
                read(&[&SETTINGS, frames].concat(), 1000)
            );
        }
        read(&[&SETTINGS, frames].concat(), 1000)
    }

    #[test]
    fn what_clients_send_is_taken() {
        for (bytes, kind) in [
            (&b"\x00\x04\x05\x06\x44\x00\x21\x0d"[..], 0),
            // Set a capacity of nothing, and nothing at all.
            (b"\x02\x20", 2),
            (b"\x03\x44", 3),
        ] {
            assert_eq!(read(bytes, 3), Ok(vec![Verdict::Is(kind)]), "{bytes:x?}");
        }
        assert_eq!(read(b"\x21xyz", 3), Ok(vec![Verdict::Ignored]));
        // A priority update and grease.
        let update = b"\x80\x0f\x07\x00\x04\x00u=1\x21\x00";
        let urgent = Verdict::Prioritize(0, Bytes::from_static(b"u=1"));
        assert_eq!(after_settings(update), Ok(vec![Verdict::Is(0), urgent]));
        // Twice the same GOAWAY, then a smaller one.
        assert!(after_settings(b"\x07\x01\x05\x07\x01\x05\x07\x01\x01").is_ok());
        assert_eq!(read(&opening(32 * 1024), 1), Ok(vec![Verdict::Is(0)]));
    }

    #[test]
    fn what_the_protocol_forbids_ends_the_connection() {
        for (bytes, code) in [
            (&b"\x01\x00"[..], Code::StreamCreation),
            (b"\x02\x3f\xe1\x1f", Code::QpackEncoderStream),
            (b"\x00\x07\x01\x00", Code::MissingSettings),
            (b"\x00\x04\x02\x02\x00", Code::Settings),
            (b"\x00\x04\x04\x06\x01\x06\x02", Code::Settings),
            (b"\x00\x04\x01\x06", Code::FrameError),
            (b"\x00\x04\x80\x10\x00\x00", Code::ExcessiveLoad),
        ] {
            assert_eq!(read(bytes, 100), Err(code), "{bytes:x?}");
        }
        for (frames, code) in [
            (&b"\x04\x00"[..], Code::FrameUnexpected),
            (b"\x00\x00", Code::FrameUnexpected),
            (b"\x01\x01\x00", Code::FrameUnexpected),
            (b"\x05\x01\x00", Code::FrameUnexpected),
            (b"\x06\x00", Code::FrameUnexpected),
            (b"\x07\x02\x00\x00", Code::FrameError),
            (b"\x07\x00", Code::FrameError),
            (b"\x07\x01\x01\x07\x01\x05", Code::Id),
            (b"\x0d\x01\x05\x0d\x01\x01", Code::Id),
            (b"\x03\x01\x00", Code::Id),
            // Of a stream of the edge's own, of a push, of none.
            (b"\x80\x0f\x07\x00\x04\x01u=1", Code::Id),
            (b"\x80\x0f\x07\x01\x04\x00u=1", Code::Id),
            (b"\x80\x0f\x07\x00\x00", Code::FrameError),
        ] {
            assert_eq!(after_settings(frames), Err(code), "{frames:x?}");
        }
        let flood = [&SETTINGS[..], &b"\x21\x00".repeat(10_001)].concat();
        assert_eq!(read(&flood, 5000), Err(Code::ExcessiveLoad));
        // However small the pieces, nothing is not set for ever.
        let nothing = [&b"\x02"[..], &[0x20; MAX_ENCODER_BYTES + 1]].concat();
        for more in [&b""[..], b"\xa1"] {
            let nothing = [&nothing, more].concat();
            assert_eq!(read(&nothing, 1), Err(Code::ExcessiveLoad));
            assert_eq!(read(&nothing, 1000), Err(Code::ExcessiveLoad));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1usize..50) {
            let _ = read(&bytes, size);
            let _ = read(&[&SETTINGS, bytes.as_slice()].concat(), size);
        }
    }
}
