//! What a framework has worked out and would use again, at its places in the project: moved there before the build's own line, and
//! taken away after it, to be kept as dependencies are.
//!
//! Whoever builds may put anything at these places. Nothing is followed: a place counts only where every folder on the way is one.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use crate::detect::Plan;

/// Where tools of Node keep what they have worked out, whatever the framework is.
const COMMON: &str = "node_modules/.cache";

/// The places of a plan, from the project's folder.
pub(super) fn places(plan: &Plan) -> Vec<&str> {
    let own = plan.framework.map(|framework| framework.caches.as_slice());
    let common = plan.node.is_some().then_some(COMMON);
    let own = own.unwrap_or_default().iter().map(String::as_str);
    own.chain(common).collect()
}

/// Moves what is in `aside` to its places. What is there already stays.
pub(super) fn bring(
    aside: &Path,
    project: &Path,
    places: &[String],
    user: Option<(u32, u32)>,
) -> io::Result<()> {
    for place in places {
        let kept = aside.join(flat(place));
        if is_folder(&kept)
            && let Some(target) = way(project, place, user)?
            && fs::symlink_metadata(&target).is_err()
        {
            fs::rename(kept, target)?;
        }
    }
    Ok(())
}

/// Moves what is at the places to `aside`, which is made. Whether there was anything.
pub(super) fn take(project: &Path, aside: &Path, places: &[String]) -> io::Result<bool> {
    fs::create_dir(aside)?;
    let mut any = false;
    for place in places {
        if let Some(found) = found(project, place) {
            fs::rename(found, aside.join(flat(place)))?;
            any = true;
        }
    }
    Ok(any)
}

/// The place, if all of the way to it are folders.
fn found(project: &Path, place: &str) -> Option<PathBuf> {
    let mut path = project.to_owned();
    for part in place.split('/') {
        path.push(part);
        if !is_folder(&path) {
            return None;
        }
    }
    Some(path)
}

/// The place, with the folders on the way made that are missing; none where something else is in the way.
fn way(project: &Path, place: &str, user: Option<(u32, u32)>) -> io::Result<Option<PathBuf>> {
    let mut path = project.to_owned();
    let (above, last) = place.rsplit_once('/').unwrap_or(("", place));
    for part in above.split('/').filter(|part| !part.is_empty()) {
        path.push(part);
        if fs::symlink_metadata(&path).is_err() {
            fs::create_dir(&path)?;
            if let Some((uid, gid)) = user {
                chown(&path, Some(uid), Some(gid))?;
            }
        }
        if !is_folder(&path) {
            return Ok(None);
        }
    }
    Ok(Some(path.join(last)))
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// No two places of a framework become one.
fn flat(place: &str) -> String {
    place.replace('/', "+")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_was_worked_out_is_taken_and_brought() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let places = [".next/cache".to_owned(), COMMON.to_owned()];
        fs::create_dir_all(at("one/.next/cache/x")).unwrap();
        assert!(take(&at("one"), &at("aside"), &places).unwrap());
        assert!(!at("one/.next/cache").exists());
        fs::create_dir(at("two")).unwrap();
        bring(&at("aside"), &at("two"), &places, None).unwrap();
        assert!(at("two/.next/cache/x").is_dir());
        assert!(!take(&at("one"), &at("nothing"), &places).unwrap());
    }

    #[test]
    fn no_link_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let places = [".next/cache".to_owned()];
        fs::create_dir_all(at("other/cache/secret")).unwrap();
        fs::create_dir_all(at("aside/.next+cache")).unwrap();
        fs::create_dir(at("project")).unwrap();
        symlink(at("other"), at("project/.next")).unwrap();
        assert!(!take(&at("project"), &at("taken"), &places).unwrap());
        fs::remove_dir_all(at("other/cache")).unwrap();
        bring(&at("aside"), &at("project"), &places, None).unwrap();
        assert!(!at("other/cache").exists());
        symlink(at("other"), at("aside/link")).unwrap();
        fs::remove_dir(at("aside/.next+cache")).unwrap();
        fs::rename(at("aside/link"), at("aside/.next+cache")).unwrap();
        fs::remove_file(at("project/.next")).unwrap();
        bring(&at("aside"), &at("project"), &places, None).unwrap();
        assert!(!at("project/.next").exists());
    }
}
