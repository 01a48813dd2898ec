//! Deploys real folders: from the command's start to its end, which is proof in both regions.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use helix_tests::fleet::Fleet;

/// Deploys each folder, changes one file, deploys it again.
pub(crate) fn run(fleet: &Fleet, folders: &[PathBuf]) -> anyhow::Result<()> {
    for folder in folders {
        let name = folder
            .file_name()
            .context("a folder has a name")?
            .to_string_lossy()
            .to_lowercase();
        let project: String = name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(30)
            .collect();
        let copy = tempfile_copy(folder)?;
        let (files, bytes) = size(&copy)?;
        println!(
            "{name}: {files} files, {:.1} MiB",
            bytes as f64 / 1_048_576.0
        );
        deploy(fleet, &project, &copy, "  first deploy")?;
        deploy(fleet, &project, &copy, "  the same again")?;
        fs::write(
            copy.join("helix-bench-changed.txt"),
            "changed\n".repeat(100),
        )?;
        deploy(fleet, &project, &copy, "  one file of 800 bytes more")?;
        fs::remove_dir_all(&copy)?;
    }
    Ok(())
}

fn deploy(fleet: &Fleet, project: &str, folder: &Path, what: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    let ended = fleet.deploy_to(project, "production", folder);
    let span = start.elapsed();
    ensure!(
        ended.code == Some(0),
        "deploy ended with {:?}: {}",
        ended.code,
        ended.stderr
    );
    let uploaded = ended
        .stderr
        .lines()
        .find(|line| line.contains("upload"))
        .unwrap_or_default();
    println!("{what}: {:.2} s   {}", span.as_secs_f64(), uploaded.trim());
    Ok(())
}

fn tempfile_copy(from: &Path) -> anyhow::Result<PathBuf> {
    let to = std::env::temp_dir().join(format!("helix-bench-{}", helix_service::random::hex16()));
    copy(from, &to)?;
    Ok(to)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn size(folder: &Path) -> anyhow::Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let (inner_files, inner_bytes) = size(&entry.path())?;
            files += inner_files;
            bytes += inner_bytes;
        } else {
            files += 1;
            bytes += entry.metadata()?.len();
        }
    }
    Ok((files, bytes))
}

/// A site of `files` small pages is deployed, `changed` of them are written anew, and it is deployed again.
pub(crate) fn redeploy(fleet: &Fleet, files: usize, changed: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let page = |number: usize, text: &str| {
        // Of its own, and as well compressed as pages are.
        let line = format!(
            "<p>page {number}: {text} {}</p>\n",
            helix_service::random::secret()
        );
        fs::write(
            folder.path().join(format!("{number}.html")),
            line.repeat(40),
        )
    };
    for number in 0..files {
        page(number, "first")?;
    }
    println!("{files} files, {changed} of them changed");
    deploy(fleet, "redeploys", folder.path(), "  first deploy")?;
    for number in 0..changed {
        page(number, "second")?;
    }
    deploy(fleet, "redeploys", folder.path(), "  after the change")
}
