//! What a project is, and how it is built: facts of a table, laid over what the project says itself.
//!
//! Pure: it looks only at what it is given, and what settings say counts before what is found. It promises nothing about whether
//! the project builds.

pub mod files;
pub mod hugo;
pub mod manager;
mod manifest;
pub mod node;
mod output;
pub mod semver;
pub mod table;
mod workspace;

use std::collections::BTreeSet;

use helix_routing::api::BuildSettings;
use serde::Serialize;

use files::{Files, join};
use manager::{Kind, Manager};
use manifest::Manifest;
use node::Node;
use semver::Range;
use table::Framework;
use workspace::Workspace;

/// Members of a monorepo that are named where one has to be chosen.
const NAMED_MEMBERS: usize = 10;
/// Where a build may leave the Build Output API's form, whatever the framework.
pub const BUILD_OUTPUT: &str = ".vercel/output";

/// A folder of the project as people write it; the project's own is `.`.
#[must_use]
pub fn shown(folder: &str) -> &str {
    if folder.is_empty() { "." } else { folder }
}

/// How a project is built.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The project's folder, from the repository's root.
    pub root: String,
    /// The folder that is installed in: the project's, or that of its workspace.
    pub install_root: String,
    /// What it is, if that was found.
    pub framework: Option<&'static Framework>,
    /// What installs its dependencies; none where there are none.
    pub manager: Option<Manager>,
    /// Which Node, where it needs any.
    pub node: Option<Node>,
    /// Which Hugo, where it needs any.
    pub hugo: Option<Range>,
    /// Shell line that installs.
    pub install: Option<String>,
    /// Shell line that builds, in the project's folder.
    pub build: Option<String>,
    /// Where the output may be, from the project's folder, in the order in which it is looked for; one alone if settings name it.
    pub outputs: Vec<String>,
    /// What somebody should know.
    pub notes: Vec<String>,
}

/// A plan as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanView {
    /// As in [`Plan`].
    pub root: String,
    /// As in [`Plan`].
    pub install_root: String,
    /// Its slug.
    pub framework: Option<String>,
    /// Its name.
    pub package_manager: Option<String>,
    /// The lockfile that is kept to.
    pub lockfile: Option<String>,
    /// The major.
    pub node: Option<u64>,
    /// As in [`Plan`].
    pub install: Option<String>,
    /// As in [`Plan`].
    pub build: Option<String>,
    /// As in [`Plan`].
    pub outputs: Vec<String>,
    /// As in [`Plan`].
    pub notes: Vec<String>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// The folder that settings name.
    #[error(
        "the root directory {root:?} is not a folder within the repository; write it as \"apps/web\""
    )]
    Root {
        /// As it is set.
        root: String,
    },
    /// The framework that settings name.
    #[error("framework {slug:?} is not known; leave it out to have it found")]
    Framework {
        /// As it is set.
        slug: String,
    },
    /// A manifest is not JSON.
    #[error("read {path}: {reason}")]
    Manifest {
        /// From the repository's root.
        path: String,
        /// Where and what.
        reason: String,
    },
}

/// Finds out how the project is built.
///
/// # Errors
/// When settings name what there is not, or a `package.json` is none.
pub fn plan(files: &impl Files, settings: &BuildSettings) -> Result<Plan, DetectError> {
    let root = root_of(settings.root.as_deref().unwrap_or_default())?;
    let manifest = manifest(files, &root)?;
    let workspace = workspace::of(files, &root);
    let install_root = workspace
        .as_ref()
        .map_or_else(|| root.clone(), |workspace| workspace.root.clone());
    let (mut notes, mut folders) = (Vec::new(), vec![root.as_str(), install_root.as_str()]);
    folders.dedup();
    let packages = manifest
        .as_ref()
        .map(Manifest::packages)
        .unwrap_or_default();
    let framework = framework(files, &root, &packages, settings)?;
    let manager = manager::find(files, &folders, &mut notes);
    let node = manager
        .is_some()
        .then(|| node::find(files, &folders, &mut notes));
    let hugo = hugo::find(files, &folders, framework, &mut notes);
    if let Some(workspace) = &workspace
        && workspace.root == root
        && framework.is_none()
    {
        notes.extend(choose_a_member(files, workspace));
    }
    let install = install(settings, manager.as_ref(), framework);
    let found = Found {
        files,
        root: &root,
        workspace: workspace.as_ref(),
        manifest: manifest.as_ref(),
        framework,
        manager: manager.as_ref(),
    };
    let build = match &settings.build {
        Some(line) => Some(line.clone()).filter(|line| !line.trim().is_empty()),
        None => found.build(),
    };
    let outputs = match &settings.output {
        Some(output) => vec![output.trim_matches('/').to_owned()],
        None => found.outputs(build.is_some()),
    };
    if let Some(framework) = framework.filter(|framework| framework.server) {
        notes.push(format!(
            "{} answers by a server; only what it writes to files is deployed",
            framework.name
        ));
    }
    Ok(Plan {
        root,
        install_root,
        framework,
        manager,
        node,
        hugo,
        install,
        build,
        outputs,
        notes,
    })
}

impl Plan {
    /// As it is shown.
    #[must_use]
    pub fn view(&self) -> PlanView {
        PlanView {
            root: self.root.clone(),
            install_root: self.install_root.clone(),
            framework: self.framework.map(|framework| framework.slug.clone()),
            package_manager: self
                .manager
                .as_ref()
                .map(|manager| manager.kind.to_string()),
            lockfile: self
                .manager
                .as_ref()
                .and_then(|manager| manager.lockfile.clone()),
            node: self.node.as_ref().map(|node| node.major),
            install: self.install.clone(),
            build: self.build.clone(),
            outputs: self.outputs.clone(),
            notes: self.notes.clone(),
        }
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut parts = vec![self.framework.map_or_else(
            || "no known framework".to_owned(),
            |framework| framework.name.clone(),
        )];
        parts.extend(
            self.node
                .as_ref()
                .map(|node| format!("Node {}", node.major)),
        );
        parts.extend(
            self.manager
                .as_ref()
                .map(|manager| manager.kind.to_string()),
        );
        parts.extend(
            self.install
                .as_ref()
                .map(|line| format!("install `{line}`")),
        );
        parts.extend(self.build.as_ref().map(|line| format!("build `{line}`")));
        let outputs: Vec<&str> = self.outputs.iter().map(|folder| shown(folder)).collect();
        parts.push(format!("output {}", outputs.join(" or ")));
        parts.join(", ")
    }
}

/// A folder within the repository, tidied.
fn root_of(text: &str) -> Result<String, DetectError> {
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if text.starts_with('/') || text.contains(['\\', '\0']) || parts.contains(&"..") {
        return Err(DetectError::Root {
            root: text.to_owned(),
        });
    }
    Ok(parts.join("/"))
}

fn manifest(files: &impl Files, root: &str) -> Result<Option<Manifest>, DetectError> {
    let path = join(root, "package.json");
    let Some(text) = files.read(&path) else {
        return Ok(None);
    };
    Manifest::read(&text)
        .map(Some)
        .map_err(|reason| DetectError::Manifest { path, reason })
}

fn framework(
    files: &impl Files,
    root: &str,
    packages: &BTreeSet<String>,
    settings: &BuildSettings,
) -> Result<Option<&'static Framework>, DetectError> {
    match settings.framework.as_deref() {
        None => Ok(table::first(files, root, packages)),
        Some("other" | "none") => Ok(None),
        Some(slug) => table::named(slug)
            .map(Some)
            .ok_or_else(|| DetectError::Framework {
                slug: slug.to_owned(),
            }),
    }
}

fn install(
    settings: &BuildSettings,
    manager: Option<&Manager>,
    framework: Option<&'static Framework>,
) -> Option<String> {
    if let Some(line) = &settings.install {
        return Some(line.clone()).filter(|line| !line.trim().is_empty());
    }
    let ours = manager.map(|manager| manager.kind.install(manager.lockfile.is_some()).to_owned());
    ours.or_else(|| framework?.install.clone())
}

/// A root that is no project itself: which of its members might be meant.
fn choose_a_member(files: &impl Files, workspace: &Workspace) -> Option<String> {
    let shown: Vec<String> = workspace
        .members(files)
        .into_iter()
        .filter(|member| {
            let manifest = manifest(files, member).ok().flatten();
            let packages = manifest
                .as_ref()
                .map(Manifest::packages)
                .unwrap_or_default();
            table::first(files, member, &packages).is_some()
        })
        .take(NAMED_MEMBERS)
        .collect();
    (!shown.is_empty()).then(|| {
        format!(
            "this is a monorepo: set the root directory to the project that is meant, such as {}",
            shown.join(", ")
        )
    })
}

/// What is known when commands are chosen.
struct Found<'a, F> {
    files: &'a F,
    root: &'a str,
    workspace: Option<&'a Workspace>,
    manifest: Option<&'a Manifest>,
    framework: Option<&'static Framework>,
    manager: Option<&'a Manager>,
}

impl<F: Files> Found<'_, F> {
    /// The project's own script, by what runs scripts of monorepos if there is such a thing; else what the framework is built with.
    fn build(&self) -> Option<String> {
        let kind = self.manager.map_or(Kind::Npm, |manager| manager.kind);
        let script = ["vercel-build", "build"].into_iter().find(|name| {
            self.manifest
                .is_some_and(|manifest| manifest.script(name).is_some())
        });
        match script {
            Some(script) => Some(
                self.through_monorepo(script)
                    .unwrap_or_else(|| kind.run(script)),
            ),
            None => self.framework?.build.clone(),
        }
    }

    /// Turbo and Nx build what a project depends on before it.
    fn through_monorepo(&self, script: &str) -> Option<String> {
        let workspace = self
            .workspace
            .filter(|workspace| workspace.root != self.root)?;
        let above = manifest(self.files, &workspace.root).ok()??.packages();
        let has = |name: &str| self.files.has(&join(&workspace.root, name));
        let within = self.root[workspace.root.len()..].trim_start_matches('/');
        let up = "../".repeat(within.split('/').count());
        if has("turbo.json") && above.contains("turbo") {
            return Some(format!("cd {up} && turbo run {script} --filter=./{within}"));
        }
        if has("nx.json") && above.contains("nx") {
            let name = self.nx_name()?;
            return Some(format!("cd {up} && nx run {name}:{script}"));
        }
        None
    }

    fn nx_name(&self) -> Option<String> {
        let project = self.files.read(&join(self.root, "project.json"));
        let named = project
            .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
            .and_then(|project| project["name"].as_str().map(str::to_owned));
        let name = named.or_else(|| self.manifest?.name().map(str::to_owned))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@' | '/' | '.');
        name.chars().all(plain).then_some(name)
    }

    fn outputs(&self, builds: bool) -> Vec<String> {
        let special = self
            .framework
            .and_then(|framework| output::said(self.files, self.root, &framework.slug));
        let listed = self.framework.map(|framework| framework.outputs.clone());
        let mut outputs: Vec<String> = special
            .into_iter()
            .chain(listed.unwrap_or_default())
            .collect();
        if self.framework.is_none() {
            let usual: &[&str] = if builds {
                &["dist", "build", "out", "public", "_site"]
            } else {
                &["public", ""]
            };
            outputs.extend(usual.iter().map(|&folder| folder.to_owned()));
        }
        if builds {
            outputs.insert(0, BUILD_OUTPUT.to_owned());
        }
        outputs
    }
}

#[cfg(test)]
mod tests;
