//! Pure. What a site requires of the provenance of an artifact, and whether one shows it.
//!
//! Always: it is of this artifact, and of this site, since a valid one of project A must not do for project B, nor a preview's
//! for production. Besides, what origin writes into the site's record when it starts a deployment to production of a linked
//! project: where that has to come from. A rollback requires nothing more: it goes to what was live, however that came there.

use alloc::boxed::Box;
use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::{Built, Checkout, Provenance, Source};
use crate::api::Trust;
use crate::id::{Digest, SiteId};

/// What a candidate's provenance has to show besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requires {
    /// The repository it was built of, as git fetches from it.
    pub repository: String,
    /// The branch.
    pub branch: String,
    /// A folder that somebody sent will do, too.
    pub uploads: bool,
}

/// An artifact that may not go to a site.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It speaks of another.
    #[error("provenance is of artifact {found}, not of {artifact}")]
    OtherArtifact {
        /// Of which.
        found: Digest,
        /// Of which it should be.
        artifact: Digest,
    },
    /// It was made for another project or environment.
    #[error("provenance is of {found}, not of {site}")]
    OtherSite {
        /// For which.
        found: SiteId,
        /// For which it should be.
        site: SiteId,
    },
    /// Somebody's folder.
    #[error(
        "it was uploaded by {by}, and {taken}: `helix link --allow-uploads` permits folders, too"
    )]
    Upload {
        /// Whose.
        by: String,
        /// What the site takes.
        taken: Box<Taken>,
    },
    /// Built of something else.
    #[error("it was built of {} of {}, and {taken}", found.reference, found.repository)]
    OtherSource {
        /// Of what.
        found: Box<Checkout>,
        /// What the site takes.
        taken: Box<Taken>,
    },
}

/// What a site takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The site.
    pub site: SiteId,
    /// What that requires.
    pub requires: Requires,
}

impl core::fmt::Display for Taken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Requires {
            repository, branch, ..
        } = &self.requires;
        let site = &self.site;
        write!(f, "{site} takes what is built of {branch} of {repository}")
    }
}

/// Whether an artifact of this provenance may go to `site`.
///
/// # Errors
/// Says why not.
pub fn judge(
    provenance: &Provenance,
    artifact: &Digest,
    site: &SiteId,
    requires: Option<&Requires>,
) -> Result<(), Refused> {
    if provenance.artifact != *artifact {
        return Err(Refused::OtherArtifact {
            found: provenance.artifact.clone(),
            artifact: artifact.clone(),
        });
    }
    if provenance.site != *site {
        return Err(Refused::OtherSite {
            found: provenance.site.clone(),
            site: site.clone(),
        });
    }
    requires.map_or(Ok(()), |requires| requires.check(&provenance.source, site))
}

impl Requires {
    /// Whether what comes from there may go to `site`.
    ///
    /// # Errors
    /// Says why not.
    pub fn check(&self, source: &Source, site: &SiteId) -> Result<(), Refused> {
        let taken = || {
            Box::new(Taken {
                site: site.clone(),
                requires: self.clone(),
            })
        };
        match source {
            Source::Build(built) if self.is_met(built) => Ok(()),
            Source::Build(built) => Err(Refused::OtherSource {
                found: Box::new(built.of.clone()),
                taken: taken(),
            }),
            // The word of an operator, which origin has signed and keeps in its audit log.
            Source::Promotion(_) => Ok(()),
            Source::Upload { .. } if self.uploads => Ok(()),
            Source::Upload { by } => Err(Refused::Upload {
                by: by.clone(),
                taken: taken(),
            }),
        }
    }

    fn is_met(&self, built: &Built) -> bool {
        built.trust == Trust::Default
            && built.of.repository == self.repository
            && built.of.reference.strip_prefix("refs/heads/") == Some(self.branch.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provenance::statement::tests::{build, promotion, upload};

    fn requires(uploads: bool) -> Requires {
        Requires {
            repository: "https://github.com/acme/shop".to_owned(),
            branch: "main".to_owned(),
            uploads,
        }
    }

    fn judged(provenance: &Provenance, requires: Option<&Requires>) -> Result<(), Refused> {
        let artifact = provenance.artifact.clone();
        judge(
            provenance,
            &artifact,
            &"shop/production".parse().unwrap(),
            requires,
        )
    }

    #[test]
    fn it_is_of_this_artifact_and_this_site_whatever_else() {
        for provenance in [build(), upload(), promotion()] {
            let site = provenance.site.clone();
            let other = format!("sha256:{}", "9".repeat(64)).parse().unwrap();
            let refused = judge(&provenance, &other, &site, None);
            assert!(matches!(refused, Err(Refused::OtherArtifact { .. })));
            for other in ["shoe/production", "shop/preview/42"] {
                let artifact = provenance.artifact.clone();
                let refused = judge(&provenance, &artifact, &other.parse().unwrap(), None);
                assert!(matches!(refused, Err(Refused::OtherSite { .. })), "{other}");
            }
            assert_eq!(judged(&provenance, None), Ok(()));
        }
    }

    #[test]
    fn production_of_a_linked_project_takes_the_default_branch_of_its_repository() {
        let required = requires(false);
        assert_eq!(judged(&build(), Some(&required)), Ok(()));
        let changed = |change: fn(&mut Built)| {
            let mut provenance = build();
            if let Source::Build(built) = &mut provenance.source {
                change(built);
            }
            judged(&provenance, Some(&required))
        };
        let cases: [fn(&mut Built); 6] = [
            |built| built.trust = Trust::Branch,
            |built| built.trust = Trust::Fork,
            |built| built.of.repository = "https://github.com/mallory/shop".to_owned(),
            |built| built.of.reference = "refs/heads/main2".to_owned(),
            |built| built.of.reference = "main".to_owned(),
            |built| built.of.reference = "refs/pull/1/head".to_owned(),
        ];
        for (number, change) in cases.into_iter().enumerate() {
            let refused = changed(change);
            assert!(
                matches!(refused, Err(Refused::OtherSource { .. })),
                "{number}"
            );
        }
    }

    #[test]
    fn a_folder_goes_there_only_where_the_settings_allow_it_and_a_promotion_always() {
        let refused = judged(&upload(), Some(&requires(false))).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("laptop") && text.contains("--allow-uploads"),
            "{text}"
        );
        assert_eq!(judged(&upload(), Some(&requires(true))), Ok(()));
        assert_eq!(judged(&promotion(), Some(&requires(false))), Ok(()));
    }
}
