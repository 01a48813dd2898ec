//! `helix build` on folders of this machine, without a network.
#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn helix(folder: &Path, arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_helix"))
        .arg("build")
        .args(arguments)
        .arg(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let manifest = r#"{"name": "shop", "scripts": {"build": "x"}, "devDependencies": {"vite": "7"}, "engines": {"node": "22"}}"#;
    fs::write(folder.path().join("package.json"), manifest).unwrap();
    fs::write(folder.path().join("package-lock.json"), "{}").unwrap();
    folder
}

#[test]
fn a_plan_is_printed_and_nothing_done() {
    let folder = project();
    let (output, said) = helix(folder.path(), &["--plan", "--json"]);
    assert!(output.status.success(), "{said}");
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&plan["framework"], &plan["node"], &plan["install"]),
        (&"vite".into(), &22.into(), &"npm ci".into())
    );
    assert!(said.contains("Vite, Node 22"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn lines_run_in_the_project_and_their_failure_is_the_commands() {
    let folder = project();
    let line = "mkdir -p dist && echo hi > dist/index.html && echo made";
    let (output, said) = helix(
        folder.path(),
        &["--install-command", "", "--build-command", line],
    );
    assert!(
        output.status.success() && said.contains("\nmade\n"),
        "{said}"
    );
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        fs::read_to_string(Path::new(printed.trim()).join("index.html")).unwrap(),
        "hi\n"
    );
    let (output, said) = helix(
        folder.path(),
        &["--install-command", "", "--build-command", "exit 3"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("`exit 3` ended with code 3"), "{said}");
    let (output, said) = helix(folder.path(), &["--root", "../up"]);
    assert!(
        !output.status.success() && said.contains("root directory"),
        "{said}"
    );
}
