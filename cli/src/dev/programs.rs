//! Where the programs are that `helix dev` starts, and the example that it deploys.

use std::path::{Path, PathBuf};

/// The example site, from the top of the workspace.
const EXAMPLE: &str = "deploy/examples/hello";
/// Where set-up puts `nats-server`, from the top of the workspace.
const NATS_SERVER: &str = ".tools/bin/nats-server";

/// A program is nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum MissingProgram {
    #[error(
        "no nats-server: give --nats-server or NATS_SERVER; `make setup` puts one into .tools/bin"
    )]
    NatsServer,
    #[error("no {name} beside {}: `make build` builds it", folder.display())]
    Own { name: &'static str, folder: PathBuf },
}

/// The `nats-server` to run: the one named, else `$NATS_SERVER`, else the one set-up fetched, else the one in `$PATH`.
pub(super) fn nats_server(named: Option<&Path>) -> Result<PathBuf, MissingProgram> {
    let set = named
        .map(Path::to_path_buf)
        .or_else(|| std::env::var_os("NATS_SERVER").map(PathBuf::from));
    set.or_else(|| in_workspace(NATS_SERVER))
        .or_else(|| in_path("nats-server"))
        .ok_or(MissingProgram::NatsServer)
}

/// A program that is in `$PATH`.
pub(super) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// One of our own programs, which lie beside this one.
pub(super) fn own(name: &'static str) -> Result<PathBuf, MissingProgram> {
    let this = std::env::current_exe().unwrap_or_default();
    let folder = this.parent().unwrap_or_else(|| Path::new("."));
    let program = folder.join(name);
    if program.is_file() {
        Ok(program)
    } else {
        Err(MissingProgram::Own {
            name,
            folder: folder.to_owned(),
        })
    }
}

/// The example site's folder.
pub(super) fn example() -> Option<PathBuf> {
    in_workspace(EXAMPLE)
}

/// Looks above the present folder, then above this executable.
fn in_workspace(path: &str) -> Option<PathBuf> {
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let folders = starts.iter().flatten().flat_map(|start| start.ancestors());
    folders
        .map(|folder| folder.join(path))
        .find(|found| found.exists())
}
