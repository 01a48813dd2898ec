//! Ports that stay the same from start to start, as long as nobody else takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use helix_service::disk::write_atomic;
use helix_service::port;

/// Ports by what listens on them.
#[derive(Debug, Default)]
pub(super) struct Ports {
    saved: BTreeMap<String, u16>,
    chosen: BTreeMap<String, u16>,
}

impl Ports {
    /// Those of the last start; none where there was no last start, or its file is damaged.
    pub(super) fn load(path: &Path) -> Self {
        let saved = fs::read(path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        Self {
            saved,
            chosen: BTreeMap::new(),
        }
    }

    /// The port of `name`: the one of the last start, else the `preferred` one, else any that is free.
    pub(super) fn choose(&mut self, name: &str, preferred: Option<u16>) -> io::Result<u16> {
        let reserved: BTreeSet<u16> = self
            .saved
            .iter()
            .filter(|(other, _)| *other != name)
            .chain(&self.chosen)
            .map(|(_, port)| *port)
            .collect();
        let saved = self.saved.get(name).copied();
        let known = saved
            .into_iter()
            .chain(preferred)
            .find(|port| !reserved.contains(port) && port::is_free(*port));
        let port = match known {
            Some(port) => port,
            None => any_free(&reserved)?,
        };
        self.chosen.insert(name.to_owned(), port);
        Ok(port)
    }

    /// Keeps the ports for the next start.
    pub(super) fn save(&self, path: &Path) -> anyhow::Result<()> {
        Ok(write_atomic(
            path,
            &serde_json::to_vec_pretty(&self.chosen)?,
        )?)
    }
}

fn any_free(reserved: &BTreeSet<u16>) -> io::Result<u16> {
    loop {
        let port = port::free()?;
        if !reserved.contains(&port) {
            return Ok(port);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_kept_until_somebody_else_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports.json");
        let mut first = Ports::load(&path);
        let free = any_free(&BTreeSet::new()).unwrap();
        let api = first.choose("api", Some(free)).unwrap();
        let edge = first.choose("edge", Some(free)).unwrap();
        assert_eq!(api, free);
        assert_ne!(edge, free);
        first.save(&path).unwrap();

        assert_eq!(Ports::load(&path).choose("api", None).unwrap(), api);
        let _taken = TcpListener::bind(("127.0.0.1", api)).unwrap();
        let mut second = Ports::load(&path);
        let moved = second.choose("api", Some(edge)).unwrap();
        assert!(moved != api && moved != edge, "{moved}");
    }
}
