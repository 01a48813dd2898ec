//! Encoding a content for clients that accept it: what is worth it, and how it is done. Pure, over readers and writers.
//!
//! Quick encodings are made before a release goes out and must not hold it up; slow ones have all the time there is.

use std::io::{self, Read, Write};

use helix_routing::artifact::ContentEncoding;

/// Contents below this many bytes fit the first segments of a response however they are encoded.
pub(super) const MIN_BYTES: u64 = 1024;
/// Contents above this are not encoded: nobody reads text of that size in a browser, and a release would wait for it.
pub(super) const MAX_BYTES: u64 = 32 * 1024 * 1024;
/// An encoding has to save one part in so many of the content.
const SAVES_ONE_IN: u64 = 20;
/// A slow encoding has to save one part in so many of what there was.
const GAINS_ONE_IN: u64 = 50;
/// Brotli's largest window as a power of two: 4 MiB, more than any file that is encoded often.
const MAX_BROTLI_WINDOW_LOG: u32 = 22;
/// Its smallest here: 64 KiB. The encoder's tables grow with the window.
const MIN_BROTLI_WINDOW_LOG: u32 = 16;

/// How hard an encoder tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effort {
    /// Tens of megabytes a second.
    Quick,
    /// As small as it gets.
    Slow,
}

impl Effort {
    /// As it is noted.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Slow => "slow",
        }
    }

    /// From its name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Quick, Self::Slow]
            .into_iter()
            .find(|effort| effort.name() == name)
    }
}

/// From the name of a coding.
pub(super) fn coding(name: &str) -> Option<ContentEncoding> {
    [
        ContentEncoding::Br,
        ContentEncoding::Zstd,
        ContentEncoding::Gzip,
    ]
    .into_iter()
    .find(|coding| coding.name() == name)
}

/// Whether files of this type, as [`super::media_type`] names it, are encoded at all: what is compressed within itself is not.
pub(super) fn compressible(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.starts_with("text/")
        || essence.ends_with("+xml")
        || essence.ends_with("+json")
        || matches!(
            essence,
            "application/json"
                | "application/json5"
                | "application/n-quads"
                | "application/n-triples"
                | "application/postscript"
                | "application/rtf"
                | "application/sql"
                | "application/toml"
                | "application/vnd.apple.mpegurl"
                | "application/vnd.ms-fontobject"
                | "application/wasm"
                | "application/x-sh"
                | "application/x-subrip"
                | "application/xml"
                | "application/xml-dtd"
                | "application/yaml"
                | "font/collection"
                | "font/otf"
                | "font/ttf"
                | "image/bmp"
                | "image/x-icon"
                | "model/obj"
                | "model/stl"
                | "model/vnd.usda"
        )
}

/// Whether `encoded` bytes are so much fewer than `size` that the coding is offered.
pub(super) const fn is_worth_it(size: u64, encoded: u64) -> bool {
    encoded < size - size / SAVES_ONE_IN
}

/// Whether `slow` bytes are so much fewer than `quick` that edges fetch them.
pub(super) const fn is_gain(quick: u64, slow: u64) -> bool {
    slow < quick - quick / GAINS_ONE_IN
}

/// Encodes everything `content` has, which is `size` bytes.
pub(super) fn encode(
    coding: ContentEncoding,
    effort: Effort,
    size: u64,
    content: &mut impl Read,
    out: &mut impl Write,
) -> io::Result<()> {
    match coding {
        ContentEncoding::Br => {
            let params = brotli::enc::BrotliEncoderParams {
                quality: if effort == Effort::Quick { 5 } else { 11 },
                lgwin: brotli_window_log(size),
                size_hint: usize::try_from(size).unwrap_or(0),
                ..Default::default()
            };
            brotli::BrotliCompress(content, out, &params).map(|_| ())
        }
        ContentEncoding::Gzip => {
            let level = if effort == Effort::Quick { 6 } else { 9 };
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(level));
            io::copy(content, &mut encoder)?;
            encoder.finish().map(|_| ())
        }
        ContentEncoding::Zstd => {
            // Level 19 is the last whose window is 8 MiB, the most that browsers take.
            let level = if effort == Effort::Quick { 3 } else { 19 };
            let mut encoder = zstd::Encoder::new(out, level)?;
            io::copy(content, &mut encoder)?;
            encoder.finish().map(|_| ())
        }
    }
}

/// The smallest window that holds the whole content.
fn brotli_window_log(size: u64) -> i32 {
    let log = size
        .next_power_of_two()
        .trailing_zeros()
        .clamp(MIN_BROTLI_WINDOW_LOG, MAX_BROTLI_WINDOW_LOG);
    i32::try_from(log).expect("it is a small number")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ContentEncoding; 3] = [
        ContentEncoding::Br,
        ContentEncoding::Zstd,
        ContentEncoding::Gzip,
    ];

    fn decoded(coding: ContentEncoding, encoded: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        let read = match coding {
            ContentEncoding::Br => {
                brotli::Decompressor::new(encoded, 4096).read_to_end(&mut content)
            }
            ContentEncoding::Zstd => zstd::Decoder::new(encoded)
                .unwrap()
                .read_to_end(&mut content),
            ContentEncoding::Gzip => {
                flate2::read::GzDecoder::new(encoded).read_to_end(&mut content)
            }
        };
        read.unwrap();
        content
    }

    #[test]
    fn every_encoding_decodes_to_the_content_and_is_the_same_every_time() {
        let text: Vec<u8> = (0..30_000_u32)
            .flat_map(|n| format!("{} {n} ", n % 97).into_bytes())
            .collect();
        for coding in ALL {
            for effort in [Effort::Quick, Effort::Slow] {
                let run = || {
                    let mut out = Vec::new();
                    encode(
                        coding,
                        effort,
                        text.len() as u64,
                        &mut text.as_slice(),
                        &mut out,
                    )
                    .unwrap();
                    out
                };
                let encoded = run();
                assert_eq!(run(), encoded);
                assert!(encoded.len() < text.len(), "{coding:?} {effort:?}");
                assert_eq!(decoded(coding, &encoded), text, "{coding:?} {effort:?}");
            }
            assert_eq!(super::coding(coding.name()), Some(coding));
        }
    }

    #[test]
    fn text_is_encoded_and_pictures_are_not() {
        for (path, expected) in [
            ("a.html", true),
            ("a.js", true),
            ("a.svg", true),
            ("a.wasm", true),
            ("a.ttf", true),
            ("a.webmanifest", true),
            ("a.png", false),
            ("a.woff2", false),
            ("a.zip", false),
            ("a.mp4", false),
            ("a.unknown", false),
        ] {
            let media_type = super::super::media_type::media_type(path);
            assert_eq!(compressible(media_type), expected, "{path}");
        }
    }

    #[test]
    fn little_is_not_worth_it() {
        assert!(is_worth_it(1000, 949));
        assert!(!is_worth_it(1000, 950));
        assert!(!is_worth_it(0, 0));
        assert!(is_gain(1000, 979));
        assert!(!is_gain(1000, 980));
    }
}
