//! The files a release is made of, checked, and the index they become. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use helix_routing::api::NewFile;
use helix_routing::artifact::{
    ContentEncoding, FileEntry, FileIndex, MAX_FILES, Variant, check_path,
};
use helix_routing::id::Digest;
use helix_routing::routes::RouteError;
use helix_routing::routes::output::OutputConfig;
use helix_service::digest::Sha256;
use helix_service::rules::{self, output};

use super::coding::{self, compressible};
use super::content::{Place, Places};
use super::media_type::media_type;
use super::release::MakeError;
use super::variants::Known;

/// The files of a release, checked.
#[derive(Debug)]
pub(super) struct Files(pub(super) BTreeMap<String, (Digest, u64, Cow<'static, str>)>);

impl Files {
    pub(super) fn check(files: Vec<NewFile>) -> Result<Self, MakeError> {
        if files.len() > MAX_FILES {
            return Err(MakeError::TooLarge {
                what: format!("{} files, at most {MAX_FILES}", files.len()),
            });
        }
        let mut checked = BTreeMap::new();
        for NewFile { path, digest, size } in files {
            check_path(&path)?;
            let media_type = Cow::Borrowed(media_type(&path));
            if checked.contains_key(&path) {
                return Err(MakeError::Twice { path });
            }
            checked.insert(path, (digest, size, media_type));
        }
        // `a` sorts before `a/…`, though not always right before it.
        for path in checked.keys() {
            let first_within = format!("{path}/");
            if checked
                .range(first_within.clone()..)
                .next()
                .is_some_and(|(next, _)| next.starts_with(&first_within))
            {
                return Err(MakeError::Folder { path: path.clone() });
            }
        }
        Ok(Self(checked))
    }

    /// The files of rules among them, which are not served.
    pub(super) fn take_rules(&mut self) -> Vec<(&'static str, Digest)> {
        let taken = rules::FILES.into_iter().filter_map(|name| {
            let (digest, ..) = self.0.remove(name)?;
            Some((name, digest))
        });
        taken.collect()
    }

    /// The functions among them, whose code is not served, each with the content that declares it.
    ///
    /// # Errors
    /// When there are too many.
    pub(super) fn take_functions(&mut self) -> Result<BTreeMap<String, Option<Digest>>, MakeError> {
        let mut functions: BTreeMap<String, Option<Digest>> = BTreeMap::new();
        self.0.retain(|path, (digest, ..)| {
            if !path.starts_with(output::FUNCTIONS_FOLDER) {
                return true;
            }
            if let Some(name) = output::function_of(path) {
                let declared = functions.entry(name.to_owned()).or_default();
                if path.ends_with(output::FUNCTION_CONFIG) {
                    *declared = Some(digest.clone());
                }
            }
            false
        });
        if functions.len() > output::MAX_FUNCTIONS {
            let most = output::MAX_FUNCTIONS;
            let what = format!("{} functions, at most {most}", functions.len());
            return Err(MakeError::TooLarge { what });
        }
        Ok(functions)
    }

    /// Leaves what `config` says is served, under the path and as the type it says.
    ///
    /// # Errors
    /// When it cannot be served so.
    pub(super) fn serve_output(&mut self, config: &OutputConfig) -> Result<(), Vec<RouteError>> {
        let files = std::mem::take(&mut self.0);
        let served = output::served(config, files.keys().map(String::as_str), &[])?;
        for (path, (digest, size, own_type)) in &files {
            if let Some(served) = served.get(path.as_str()) {
                let said = served.media_type.clone().map(Cow::Owned);
                let media_type = said.unwrap_or_else(|| own_type.clone());
                let entry = (digest.clone(), *size, media_type);
                self.0.insert(served.path.clone(), entry);
            }
        }
        Ok(())
    }

    /// Digest over paths, contents and types. A path has no line feed, so lines cannot be confused.
    pub(super) fn content(&self) -> Digest {
        let mut sum = Sha256::new();
        for (path, (digest, _, media_type)) in &self.0 {
            sum.update(format!("{digest} {media_type}\t{path}\n").as_bytes());
        }
        sum.finish()
    }

    pub(super) fn compare(&self, places: &Places) -> Result<(), MakeError> {
        let missing: BTreeSet<&Digest> = self
            .0
            .values()
            .map(|(digest, ..)| digest)
            .filter(|digest| !places.contains_key(*digest))
            .collect();
        if !missing.is_empty() {
            return Err(MakeError::Missing {
                digests: missing.into_iter().cloned().collect(),
            });
        }
        for (path, (digest, said, _)) in &self.0 {
            let found = places[digest].size;
            if *said != found {
                return Err(MakeError::Size {
                    path: path.clone(),
                    said: *said,
                    found,
                });
            }
        }
        Ok(())
    }

    pub(super) fn totals(&self) -> (u64, u64) {
        (
            self.0.len() as u64,
            self.0.values().map(|(_, size, _)| size).sum(),
        )
    }

    /// Contents that clients may get encoded.
    pub(super) fn compressible(&self) -> BTreeSet<Digest> {
        self.0
            .values()
            .filter(|(.., media_type)| compressible(media_type))
            .map(|(digest, ..)| digest.clone())
            .collect()
    }

    /// Every file where it lies, with the variants that are known.
    pub(super) fn index(&self, places: &Places, known: &Known) -> FileIndex {
        let entry = |(digest, size, media_type): &(Digest, u64, Cow<'static, str>)| {
            let place = &places[digest];
            let seen = place.seen.as_millis() / 1000;
            FileEntry {
                digest: digest.clone(),
                size: *size,
                media_type: media_type.clone().into_owned(),
                pack: place.pack.clone(),
                offset: place.offset,
                length: place.length,
                encoding: place.encoding,
                modified: (seen > 0).then_some(seen),
                variants: if compressible(media_type) {
                    variants(digest, place, places, known)
                } else {
                    Vec::new()
                },
            }
        };
        FileIndex {
            version: 1,
            files: self
                .0
                .iter()
                .map(|(path, file)| (path.clone(), entry(file)))
                .collect(),
        }
    }
}

/// The variants of one content: those that were made, and its stored frame if that can be sent.
fn variants(digest: &Digest, place: &Place, places: &Places, known: &Known) -> Vec<Variant> {
    let made = known.get(digest).into_iter().flatten();
    let mut variants: Vec<Variant> = made
        .filter_map(|(coding, tried)| {
            let digest = tried.variant.as_ref()?;
            let place = places.get(digest)?;
            Some(variant(*coding, digest, place))
        })
        .collect();
    let has_zstd = variants
        .iter()
        .any(|variant| variant.encoding == ContentEncoding::Zstd);
    if let Some(encoded) = &place.encoded
        && !has_zstd
        && place.size >= coding::MIN_BYTES
        && coding::is_worth_it(place.size, place.length)
    {
        variants.push(variant(ContentEncoding::Zstd, encoded, place));
    }
    variants
}

fn variant(encoding: ContentEncoding, digest: &Digest, place: &Place) -> Variant {
    Variant {
        encoding,
        digest: digest.clone(),
        size: place.length,
        pack: place.pack.clone(),
        offset: place.offset,
    }
}

#[cfg(test)]
pub(super) mod sample {
    use super::NewFile;
    use helix_service::digest::sha256;

    pub(in crate::artifact) fn file(path: &str, content: &str) -> NewFile {
        NewFile {
            path: path.to_owned(),
            digest: sha256(content.as_bytes()),
            size: content.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::sample::file;
    use super::*;

    #[test]
    fn lists_of_files_that_cannot_be_served_are_refused() {
        let refused = |files: Vec<NewFile>| Files::check(files).unwrap_err();
        assert!(matches!(
            refused(vec![file("../x", "")]),
            MakeError::Path(_)
        ));
        assert!(matches!(
            refused(vec![file("a", "1"), file("a", "2")]),
            MakeError::Twice { .. }
        ));
        assert!(matches!(
            refused(vec![file("a", "1"), file("a-b", "1"), file("a/b", "2")]),
            MakeError::Folder { .. }
        ));
        assert!(Files::check(vec![file("a", "1"), file("A", "2"), file("a.b", "2")]).is_ok());
    }
}
