//! A large file, encoded and sent in chunks that a broken connection does not lose.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};

use bytes::Bytes;
use helix_routing::artifact::Encoding;
use helix_service::digest::Sha256;

use super::Content;
use super::hash::BUFFER_BYTES;
use super::pack::ZSTD_LEVEL;

/// Sent at a time; what a broken connection costs at most.
pub(super) const CHUNK_BYTES: u64 = 8 * 1024 * 1024;

/// A large file could not be prepared or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum StandaloneError {
    #[error("read file {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("compress file {path} to a temporary file")]
    Compress {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("file {path} changed during the deployment; run it again")]
    Changed { path: String },
}

/// A large file as it is sent.
#[derive(Debug)]
pub(super) struct Encoded {
    path: String,
    file: File,
    /// How its bytes encode the content.
    pub(super) encoding: Encoding,
    /// How many they are.
    pub(super) length: u64,
}

impl Encoded {
    /// Compresses the file beside; where that gains less than 3 %, it is sent as it is. The same file gives the same
    /// bytes every time, so a later run goes on where this one was cut off.
    pub(super) fn prepare(content: &Content) -> Result<Self, StandaloneError> {
        let path = content.path.clone();
        let mut source = File::open(&content.source).map_err(|source| StandaloneError::Read {
            path: path.clone(),
            source,
        })?;
        let (packed, length) = compress(content, &mut source)?;
        if length < content.size - content.size * 3 / 100 {
            return Ok(Self {
                path,
                file: packed,
                encoding: Encoding::Zstd,
                length,
            });
        }
        Ok(Self {
            path,
            file: source,
            encoding: Encoding::Identity,
            length: content.size,
        })
    }

    /// The chunk that starts at `offset`; empty at the end.
    pub(super) fn chunk(&mut self, offset: u64) -> Result<Bytes, StandaloneError> {
        let length = CHUNK_BYTES.min(self.length.saturating_sub(offset));
        let mut bytes = Vec::new();
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| (&mut self.file).take(length).read_to_end(&mut bytes))
            .map_err(|source| StandaloneError::Read {
                path: self.path.clone(),
                source,
            })?;
        if bytes.len() as u64 == length {
            Ok(Bytes::from(bytes))
        } else {
            Err(self.changed())
        }
    }

    /// The error for bytes that are no longer those that were hashed.
    pub(super) fn changed(&self) -> StandaloneError {
        StandaloneError::Changed {
            path: self.path.clone(),
        }
    }
}

/// Compresses into a file without a name, and checks on the way that the content is still the one that was hashed.
fn compress(content: &Content, source: &mut File) -> Result<(File, u64), StandaloneError> {
    let path = || content.path.clone();
    let failed = |source| StandaloneError::Compress {
        path: path(),
        source,
    };
    let target = tempfile::tempfile().map_err(failed)?;
    let mut encoder = zstd::Encoder::new(target, ZSTD_LEVEL).map_err(failed)?;
    encoder
        .set_pledged_src_size(Some(content.size))
        .map_err(failed)?;
    let mut sum = Sha256::new();
    let (mut buffer, mut left) = (vec![0; BUFFER_BYTES], content.size);
    loop {
        let read = source
            .read(&mut buffer)
            .map_err(|source| StandaloneError::Read {
                path: path(),
                source,
            })?;
        left = left
            .checked_sub(read as u64)
            .ok_or_else(|| StandaloneError::Changed { path: path() })?;
        if read == 0 {
            break;
        }
        sum.update(&buffer[..read]);
        encoder.write_all(&buffer[..read]).map_err(failed)?;
    }
    if left != 0 || sum.finish() != content.digest {
        return Err(StandaloneError::Changed { path: path() });
    }
    let mut packed = encoder.finish().map_err(failed)?;
    let length = packed.stream_position().map_err(failed)?;
    Ok((packed, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_service::digest::sha256;

    fn content(folder: &tempfile::TempDir, bytes: &[u8]) -> Content {
        let source = folder.path().join("big");
        std::fs::write(&source, bytes).unwrap();
        Content {
            digest: sha256(bytes),
            size: bytes.len() as u64,
            path: "big".to_owned(),
            source,
        }
    }

    fn read_all(encoded: &mut Encoded) -> Vec<u8> {
        let mut all = Vec::new();
        while (all.len() as u64) < encoded.length {
            all.extend(encoded.chunk(all.len() as u64).unwrap());
        }
        assert!(encoded.chunk(encoded.length).unwrap().is_empty());
        all
    }

    #[test]
    fn text_is_compressed_the_same_way_every_time_and_noise_is_sent_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let text = b"all work and no play ".repeat(1_000_000);
        let content_of_text = content(&folder, &text);
        let mut encoded = Encoded::prepare(&content_of_text).unwrap();
        assert_eq!(encoded.encoding, Encoding::Zstd);
        let bytes = read_all(&mut encoded);
        assert_eq!(
            bytes,
            read_all(&mut Encoded::prepare(&content_of_text).unwrap())
        );
        assert_eq!(zstd::decode_all(bytes.as_slice()).unwrap(), text);

        let noise: Vec<u8> = (0..500_000).map(|_| rand::random()).collect();
        let mut encoded = Encoded::prepare(&content(&folder, &noise)).unwrap();
        assert_eq!(encoded.encoding, Encoding::Identity);
        assert_eq!(read_all(&mut encoded), noise);
    }

    #[test]
    fn a_file_that_changed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let old = content(&folder, b"some content");
        for new in ["some", "some context", "some content and more"] {
            std::fs::write(&old.source, new).unwrap();
            let error = Encoded::prepare(&old).unwrap_err();
            assert!(matches!(error, StandaloneError::Changed { .. }), "{error}");
        }
    }
}
