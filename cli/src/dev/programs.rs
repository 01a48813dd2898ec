//! Where the programs are that `helix dev` starts.

use std::path::{Path, PathBuf};

/// The `nats-server` to run: the one named, else `$NATS_SERVER`, else `.tools/bin/nats-server` in this
/// folder or one above it, or above this executable, else the one in `$PATH`.
pub(crate) fn nats_server(named: Option<&Path>) -> Option<PathBuf> {
    let set = named
        .map(Path::to_path_buf)
        .or_else(|| std::env::var_os("NATS_SERVER").map(PathBuf::from));
    if set.is_some() {
        return set;
    }
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let tools = starts.iter().flatten().flat_map(|start| start.ancestors());
    let beside = tools.map(|folder| folder.join(".tools/bin/nats-server"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|folder| folder.join("nats-server"))
        .collect();
    beside.chain(installed).find(|program| program.is_file())
}
