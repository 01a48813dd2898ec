//! Secrets in what was built: found before anything of it leaves the worker.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::mask::Mask;

/// Read at a time; what a value may lie across is kept from one to the next.
const PART_BYTES: usize = 256 * 1024;

/// The variable whose value a file has, if it has one.
///
/// # Errors
/// When the file cannot be read.
pub fn scan(mask: &Mask, file: &Path) -> io::Result<Option<String>> {
    if mask.longest() == 0 {
        return Ok(None);
    }
    let mut file = File::open(file)?;
    let kept = mask.longest() - 1;
    let mut bytes = vec![0; PART_BYTES + kept];
    let mut filled = 0;
    loop {
        let read = file.read(&mut bytes[filled..])?;
        if read == 0 {
            return Ok(None);
        }
        filled += read;
        if let Some(name) = mask.find(&bytes[..filled]) {
            return Ok(Some(name.to_owned()));
        }
        let start = filled.saturating_sub(kept);
        bytes.copy_within(start..filled, 0);
        filled -= start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_across_two_parts_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.js");
        let mask = Mask::new([("KEY", "hunter22hunter22")]);
        for at in [0, PART_BYTES - 3, PART_BYTES + 9, 3 * PART_BYTES - 8] {
            let mut bytes = vec![b'h'; 3 * PART_BYTES];
            bytes.splice(at..at, *b"hunter22hunter22");
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(scan(&mask, &path).unwrap().as_deref(), Some("KEY"), "{at}");
        }
        std::fs::write(&path, vec![b'h'; 3 * PART_BYTES]).unwrap();
        assert_eq!(scan(&mask, &path).unwrap(), None);
    }
}
