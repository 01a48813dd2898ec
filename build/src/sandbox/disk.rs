//! How much of a disk a folder takes.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::statvfs::statvfs;
use walkdir::WalkDir;

/// A block of `st_blocks`, by definition.
const BLOCK_BYTES: u64 = 512;

/// Bytes that a folder takes on disk, as far as it can be read. Stops counting above `enough`.
pub(crate) fn taken(folder: &Path, enough: u64) -> u64 {
    let mut bytes = 0;
    // A build makes and removes files meanwhile: what is gone counts nothing.
    for entry in WalkDir::new(folder)
        .follow_links(false)
        .into_iter()
        .filter_map(Result::ok)
    {
        bytes += entry
            .metadata()
            .map_or(0, |file| file.blocks() * BLOCK_BYTES);
        if bytes > enough {
            break;
        }
    }
    bytes
}

/// Bytes that are free where the folder is.
pub(crate) fn free(folder: &Path) -> Option<u64> {
    let found = statvfs(folder).ok()?;
    Some(
        found
            .blocks_available()
            .saturating_mul(found.fragment_size()),
    )
}
