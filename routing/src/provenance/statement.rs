//! Pure. An in-toto Statement v1 whose predicate is SLSA provenance v1: how a [`Provenance`] is written, and read again.
//!
//! Three build types, each described in `docs/provenance.md`. Fields that are not known are passed over, as in-toto asks of
//! readers; what is known and does not fit is refused. Both kinds of parameters are signed alike: SLSA calls external
//! what somebody outside chose, internal what origin did.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Built, Checkout, LogDigest, Promoted, Provenance, Source};
use crate::api::Trust;
use crate::id::{BuildId, Commit, Digest, Environment, ProjectName, ReleaseId, SiteId};

/// What every statement is (in-toto attestation, spec/v1/statement.md).
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// What its predicate is (SLSA v1.0, provenance).
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// A worker built it.
pub const BUILD_TYPE: &str = "https://helixstack.dev/provenance/build/v1";
/// Somebody sent a folder.
pub const UPLOAD_TYPE: &str = "https://helixstack.dev/provenance/upload/v1";
/// An operator promoted a preview.
pub const PROMOTION_TYPE: &str = "https://helixstack.dev/provenance/promotion/v1";
/// Who builds: a worker in its sandbox.
pub const WORKER: &str = "https://helixstack.dev/builder/worker/v1";
/// Who packs what was sent: origin.
pub const ORIGIN: &str = "https://helixstack.dev/builder/origin/v1";

const SHA256: &str = "sha256";
const GIT_COMMIT: &str = "gitCommit";
const LOG: &str = "log";
const LINES: &str = "lines";

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// The one artifact.
    pub subject: Vec<Resource>,
    /// [`PREDICATE_TYPE`].
    pub predicate_type: String,
    /// Where it comes from.
    pub predicate: Predicate,
}

/// A resource descriptor of in-toto, as far as it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// By algorithm, in hex.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// More of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// SLSA provenance v1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Predicate {
    /// What was asked for.
    pub build_definition: BuildDefinition,
    /// Who did it.
    pub run_details: RunDetails,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildDefinition {
    /// How to read the parameters.
    pub build_type: String,
    /// What somebody outside chose.
    pub external_parameters: ExternalParameters,
    /// What origin knows.
    #[serde(default)]
    pub internal_parameters: InternalParameters,
    /// What it was made of.
    #[serde(default)]
    pub resolved_dependencies: Vec<Resource>,
}

/// Parameters of all three build types; each has its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalParameters {
    /// The project.
    pub project: ProjectName,
    /// The environment.
    pub environment: Environment,
    /// As git fetches from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// As in `refs/heads/main`.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
    /// Folder within the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The shell line that builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_command: Option<String>,
    /// The name of the token it was done with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why a preview was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which preview's release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PromotedFrom>,
}

/// The release that was promoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotedFrom {
    /// Its environment.
    pub environment: Environment,
    /// The release.
    pub release: ReleaseId,
}

/// What origin knows of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternalParameters {
    /// How far what was built is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
}

/// Who did it, and what else came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDetails {
    /// Who did it.
    pub builder: Builder,
    /// Which time.
    #[serde(default)]
    pub metadata: Metadata,
    /// What else came of it: the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub byproducts: Vec<Resource>,
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builder {
    /// [`WORKER`] or [`ORIGIN`].
    pub id: String,
}

/// Which time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The build's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
}

/// A statement that says nothing that can be relied on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Another kind of statement.
    #[error("statement is of {found:?}, {needed} is needed")]
    Kind {
        /// What it is.
        found: String,
        /// What it should be.
        needed: &'static str,
    },
    /// None, or more than one, or not by its SHA-256.
    #[error("statement has not one subject with its sha256")]
    Subject,
    /// Neither a build nor an upload nor a promotion.
    #[error("build type {0:?} is not known")]
    BuildType(String),
    /// Not by who does such a thing.
    #[error("a {what} is not done by {builder:?}")]
    Builder {
        /// Build, upload or promotion.
        what: &'static str,
        /// Who it says did it.
        builder: String,
    },
    /// Something is left out.
    #[error("a {what} has to name its {field}")]
    Lacks {
        /// Build, upload or promotion.
        what: &'static str,
        /// What is not there.
        field: &'static str,
    },
    /// The commit in the parameters is not the one that was fetched.
    #[error("the commit that was fetched is another than the one named")]
    Commit,
}

/// Longest foreign text that an error repeats, in characters.
const MAX_SHOWN: usize = 100;

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

impl Statement {
    /// What is said of an artifact. The same provenance gives the same statement.
    #[must_use]
    pub fn of(provenance: &Provenance) -> Self {
        let site = &provenance.site;
        let subject = Resource {
            name: site.to_string(),
            digest: digest(SHA256, provenance.artifact.hex()),
            ..Resource::default()
        };
        Self {
            kind: String::from(STATEMENT_TYPE),
            subject: Vec::from([subject]),
            predicate_type: String::from(PREDICATE_TYPE),
            predicate: match &provenance.source {
                Source::Build(built) => of_build(site, built),
                Source::Upload { by } => of_upload(site, by),
                Source::Promotion(promoted) => of_promotion(site, promoted),
            },
        }
    }

    /// What it says. Only for a statement whose signature has verified.
    ///
    /// # Errors
    /// As [`Unreadable`] says.
    pub fn read(self) -> Result<Provenance, Unreadable> {
        expect(&self.kind, STATEMENT_TYPE)?;
        expect(&self.predicate_type, PREDICATE_TYPE)?;
        let [subject] = self.subject.as_slice() else {
            return Err(Unreadable::Subject);
        };
        let hex = subject.digest.get(SHA256).ok_or(Unreadable::Subject)?;
        let artifact = Digest::from_hex(hex).map_err(|_| Unreadable::Subject)?;
        let definition = &self.predicate.build_definition;
        let site = SiteId {
            project: definition.external_parameters.project.clone(),
            environment: definition.external_parameters.environment,
        };
        let source = match definition.build_type.as_str() {
            BUILD_TYPE => Source::Build(self.predicate.build()?),
            UPLOAD_TYPE => self.predicate.upload()?,
            PROMOTION_TYPE => Source::Promotion(self.predicate.promotion()?),
            other => return Err(Unreadable::BuildType(shown(other))),
        };
        Ok(Provenance {
            site,
            artifact,
            source,
        })
    }
}

fn expect(found: &str, needed: &'static str) -> Result<(), Unreadable> {
    if found == needed {
        return Ok(());
    }
    Err(Unreadable::Kind {
        found: shown(found),
        needed,
    })
}

fn digest(algorithm: &str, hex: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(String::from(algorithm), String::from(hex))])
}

fn parameters(site: &SiteId) -> ExternalParameters {
    ExternalParameters {
        project: site.project.clone(),
        environment: site.environment,
        repository: None,
        reference: None,
        commit: None,
        root: None,
        build_command: None,
        by: None,
        reason: None,
        from: None,
    }
}

/// With what was checked out.
fn checked_out(parameters: ExternalParameters, of: &Checkout) -> ExternalParameters {
    ExternalParameters {
        repository: Some(of.repository.clone()),
        reference: Some(of.reference.clone()),
        commit: Some(of.commit.clone()),
        ..parameters
    }
}

fn fetched(of: &Checkout) -> Resource {
    Resource {
        uri: alloc::format!("git+{}@{}", of.repository, of.reference),
        digest: digest(GIT_COMMIT, of.commit.as_str()),
        ..Resource::default()
    }
}

fn done_by(builder: &str, metadata: Metadata, byproducts: Vec<Resource>) -> RunDetails {
    let id = String::from(builder);
    RunDetails {
        builder: Builder { id },
        metadata,
        byproducts,
    }
}

fn of_build(site: &SiteId, built: &Built) -> Predicate {
    let log = built.log.as_ref().map(|log| Resource {
        name: String::from(LOG),
        digest: digest(SHA256, log.digest.hex()),
        annotations: BTreeMap::from([(String::from(LINES), log.lines.to_string())]),
        ..Resource::default()
    });
    let invocation_id = Some(built.build.to_string());
    Predicate {
        build_definition: BuildDefinition {
            build_type: String::from(BUILD_TYPE),
            external_parameters: ExternalParameters {
                root: built.root.clone(),
                build_command: built.command.clone(),
                ..checked_out(parameters(site), &built.of)
            },
            internal_parameters: InternalParameters {
                trust: Some(built.trust),
            },
            resolved_dependencies: Vec::from([fetched(&built.of)]),
        },
        run_details: done_by(
            WORKER,
            Metadata { invocation_id },
            log.into_iter().collect(),
        ),
    }
}

fn of_upload(site: &SiteId, by: &str) -> Predicate {
    Predicate {
        build_definition: BuildDefinition {
            build_type: String::from(UPLOAD_TYPE),
            external_parameters: ExternalParameters {
                by: Some(String::from(by)),
                ..parameters(site)
            },
            internal_parameters: InternalParameters::default(),
            resolved_dependencies: Vec::new(),
        },
        run_details: done_by(ORIGIN, Metadata::default(), Vec::new()),
    }
}

fn of_promotion(site: &SiteId, promoted: &Promoted) -> Predicate {
    let artifact = Resource {
        name: promoted.from.to_string(),
        digest: digest(SHA256, promoted.artifact.hex()),
        ..Resource::default()
    };
    let of = promoted.built_of.as_ref();
    let plain = of.map_or_else(|| parameters(site), |of| checked_out(parameters(site), of));
    Predicate {
        build_definition: BuildDefinition {
            build_type: String::from(PROMOTION_TYPE),
            external_parameters: ExternalParameters {
                by: Some(promoted.by.clone()),
                reason: Some(promoted.reason.clone()),
                from: Some(PromotedFrom {
                    environment: promoted.from.environment,
                    release: promoted.release.clone(),
                }),
                ..plain
            },
            internal_parameters: InternalParameters::default(),
            resolved_dependencies: core::iter::once(artifact).chain(of.map(fetched)).collect(),
        },
        run_details: done_by(ORIGIN, Metadata::default(), Vec::new()),
    }
}

impl Predicate {
    fn by(&self, what: &'static str, needed: &str) -> Result<(), Unreadable> {
        let found = &self.run_details.builder.id;
        if found == needed {
            return Ok(());
        }
        Err(Unreadable::Builder {
            what,
            builder: shown(found),
        })
    }

    fn build(&self) -> Result<Built, Unreadable> {
        let what = "build";
        self.by(what, WORKER)?;
        let lacks = |field| move || Unreadable::Lacks { what, field };
        let definition = &self.build_definition;
        let invocation = self.run_details.metadata.invocation_id.as_deref();
        let build: Option<BuildId> = invocation.and_then(|id| id.parse().ok());
        let of = self.checkout(what)?.ok_or_else(lacks("repository"))?;
        let trust = definition.internal_parameters.trust;
        Ok(Built {
            of,
            trust: trust.ok_or_else(lacks("trust"))?,
            root: definition.external_parameters.root.clone(),
            command: definition.external_parameters.build_command.clone(),
            build: build.ok_or_else(lacks("invocation id"))?,
            log: self.log(),
        })
    }

    fn upload(&self) -> Result<Source, Unreadable> {
        let what = "upload";
        self.by(what, ORIGIN)?;
        let by = self.build_definition.external_parameters.by.clone();
        let by = by.ok_or(Unreadable::Lacks { what, field: "by" })?;
        Ok(Source::Upload { by })
    }

    fn promotion(&self) -> Result<Promoted, Unreadable> {
        let what = "promotion";
        self.by(what, ORIGIN)?;
        let lacks = |field| move || Unreadable::Lacks { what, field };
        let parameters = &self.build_definition.external_parameters;
        let from = parameters.from.clone().ok_or_else(lacks("preview"))?;
        let artifact = self.build_definition.resolved_dependencies.first();
        let hex = artifact.and_then(|artifact| artifact.digest.get(SHA256));
        let artifact = hex.and_then(|hex| Digest::from_hex(hex).ok());
        let reason = parameters.reason.clone();
        Ok(Promoted {
            by: parameters.by.clone().ok_or_else(lacks("by"))?,
            reason: reason.ok_or_else(lacks("reason"))?,
            from: SiteId {
                project: parameters.project.clone(),
                environment: from.environment,
            },
            release: from.release,
            artifact: artifact.ok_or_else(lacks("artifact"))?,
            built_of: self.checkout(what)?,
        })
    }

    /// What was checked out, if a repository is named at all. The commit is named twice, and has to be the same.
    fn checkout(&self, what: &'static str) -> Result<Option<Checkout>, Unreadable> {
        let lacks = |field| move || Unreadable::Lacks { what, field };
        let parameters = &self.build_definition.external_parameters;
        let Some(repository) = parameters.repository.clone() else {
            return Ok(None);
        };
        let commit = parameters.commit.clone().ok_or_else(lacks("commit"))?;
        let reference = parameters.reference.clone();
        let fetched = &self.build_definition.resolved_dependencies;
        let mut fetched = fetched
            .iter()
            .filter_map(|one| one.digest.get(GIT_COMMIT).map(String::as_str));
        if (fetched.next(), fetched.next()) != (Some(commit.as_str()), None) {
            return Err(Unreadable::Commit);
        }
        Ok(Some(Checkout {
            repository,
            reference: reference.ok_or_else(lacks("ref"))?,
            commit,
        }))
    }

    fn log(&self) -> Option<LogDigest> {
        let products = &self.run_details.byproducts;
        let log = products.iter().find(|product| product.name == LOG)?;
        Some(LogDigest {
            digest: Digest::from_hex(log.digest.get(SHA256)?).ok()?,
            lines: log.annotations.get(LINES)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
#[path = "statement_tests.rs"]
pub(crate) mod tests;
