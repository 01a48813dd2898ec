//! What projects are, compared with what two published packages say: npm `@vercel/frameworks` and `@netlify/build-info`.
//!
//! `deploy/setup/tools.py --tests` installs them below `.tools/judges`; without them this is passed over. Where we differ on purpose
//! the reason is beside the row.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may stop here, and says why it is passed over"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use helix_build::detect;
use helix_build::detect::files::Folder;
use helix_build::detect::table::{self, Framework};
use helix_routing::api::BuildSettings;
use serde::Deserialize;

/// Our names for theirs, where they differ.
const VERCEL: &[(&str, &str)] = &[
    ("blitzjs", "blitz"),
    ("nextjs", "next"),
    ("docusaurus-2", "docusaurus"),
    ("docusaurus", "docusaurus-1"),
    ("solidstart-1", "solid-start"),
    ("solidstart", "solid-start"),
    ("vue", "vue-cli"),
    ("sveltekit-1", "svelte-kit"),
    ("sveltekit", "svelte-kit"),
    ("umijs", "umi"),
    ("nuxtjs", "nuxt"),
    ("redwoodjs", "redwood"),
    ("sanity-v2", "sanity-2"),
];

/// As above.
const NETLIFY: &[(&str, &str)] = &[
    ("redwoodjs", "redwood"),
    ("solid-js", "solid"),
    ("vue", "vue-cli"),
    ("create-react-app", "create-react-app"),
];

/// Where we differ: our name, who says something else, and why ours is right here.
const DIFFERENT: &[(&str, &str, &str)] = &[
    (
        "docusaurus-1",
        "netlify",
        "one name for both versions, whose commands and folders differ",
    ),
    (
        "react-router",
        "netlify",
        "known by its own configuration alone, where they take any of Vite's for Remix",
    ),
    (
        "hugo",
        "netlify",
        "config.yml with a baseURL, which they take for Cecil's",
    ),
];

/// What one of them knows and we do not: programs that answer by themselves, of which no files are deployed, and what is not out yet.
const SERVERS: &[&str] = &[
    "actix-web",
    "ash",
    "axum",
    "bun",
    "container",
    "eve",
    "factory-eve",
    "fasthtml",
    "go",
    "node",
    "python",
    "ruby",
    "rust",
    "services",
    "tanstack-start-lovable",
];

#[derive(Debug, Deserialize)]
struct Answers {
    vercel: Vec<String>,
    netlify: Vec<String>,
    folders: BTreeMap<PathBuf, Answer>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    vercel: Option<String>,
    netlify: Vec<String>,
}

fn judges() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/judges");
    let there = ["@vercel/frameworks", "@netlify/build-info"]
        .iter()
        .all(|name| folder.join("node_modules").join(name).is_dir());
    if !there {
        eprintln!(
            "skipped: @vercel/frameworks and @netlify/build-info are not below .tools/judges, run `deploy/setup/tools.py --tests`"
        );
        return None;
    }
    fs::canonicalize(folder).ok()
}

/// A project that shows a framework by each of what shows it: one for each package and file.
fn projects(framework: &Framework) -> Vec<Vec<(String, String)>> {
    let package = |names: &[&String]| {
        let list: Vec<String> = names
            .iter()
            .map(|name| format!("{name:?}: \"1.0.0\""))
            .collect();
        (
            "package.json".to_owned(),
            format!(
                "{{\"name\": \"x\", \"dependencies\": {{{}}}}}",
                list.join(", ")
            ),
        )
    };
    let mut projects = Vec::new();
    for name in &framework.packages {
        let names: Vec<&String> = framework.all.iter().chain([name]).collect();
        projects.push(vec![package(&names)]);
    }
    for file in &framework.files {
        projects.push(vec![(file.clone(), String::new())]);
    }
    for content in &framework.contents {
        projects.push(vec![(
            content.file.clone(),
            format!("{} = 1\n", content.text),
        )]);
    }
    projects
}

fn ask(judges: &Path, folders: &[PathBuf]) -> Answers {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges/ask.mjs");
    let mut child = Command::new("node")
        .arg(script)
        .arg(judges)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let question = serde_json::to_vec(folders).unwrap();
    child.stdin.take().unwrap().write_all(&question).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn ours<'a>(names: &[(&str, &'a str)], theirs: &'a str) -> &'a str {
    names
        .iter()
        .find(|(name, _)| *name == theirs)
        .map_or(theirs, |(_, ours)| ours)
}

#[test]
fn what_both_know_is_known_and_answers_agree() {
    let Some(judges) = judges() else { return };
    let root = tempfile::tempdir().unwrap();
    let mut fixtures = Vec::new();
    for framework in table::all() {
        for (number, files) in projects(framework).into_iter().enumerate() {
            let folder = fs::canonicalize(root.path())
                .unwrap()
                .join(format!("{}-{number}", framework.slug));
            for (path, text) in files {
                let path = folder.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            fixtures.push((framework.slug.as_str(), folder));
        }
    }
    let folders: Vec<PathBuf> = fixtures.iter().map(|(_, folder)| folder.clone()).collect();
    let answers = ask(&judges, &folders);
    let known = answers
        .vercel
        .iter()
        .map(|name| ours(VERCEL, name))
        .chain(answers.netlify.iter().map(|name| ours(NETLIFY, name)));
    let unknown: Vec<&str> = known
        .filter(|name| table::named(name).is_none() && !SERVERS.contains(name))
        .collect();
    assert!(unknown.is_empty(), "not in the table: {unknown:?}");
    let (mut wrong, mut compared) = (Vec::new(), [0, 0]);
    let settings = BuildSettings {
        root: None,
        framework: None,
        install: None,
        build: None,
        output: None,
        start: None,
    };
    for (slug, folder) in &fixtures {
        let plan = detect::plan(&Folder::open(folder).unwrap(), &settings).unwrap();
        let found = plan.framework.map(|framework| framework.slug.as_str());
        let Answer { vercel, netlify } = &answers.folders[folder];
        let vercel = vercel.as_deref().map(|name| ours(VERCEL, name));
        let netlify: Vec<&str> = netlify.iter().map(|name| ours(NETLIFY, name)).collect();
        let excused = |who: &str| {
            DIFFERENT
                .iter()
                .any(|(ours, theirs, _)| ours == slug && *theirs == who)
        };
        compared[0] += usize::from(vercel.is_some());
        compared[1] += usize::from(!netlify.is_empty());
        let name = folder.file_name().unwrap().to_str().unwrap();
        if vercel.is_some() && vercel != found && !excused("vercel") {
            wrong.push(format!("{name}: {found:?}, vercel {vercel:?}"));
        }
        if !netlify.is_empty()
            && !found.is_some_and(|found| netlify.contains(&found))
            && !excused("netlify")
        {
            wrong.push(format!("{name}: {found:?}, netlify {netlify:?}"));
        }
    }
    eprintln!(
        "{} fixtures, {} compared with vercel, {} with netlify",
        fixtures.len(),
        compared[0],
        compared[1]
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared[0] > 60 && compared[1] > 55, "{compared:?}");
}
