//! `.helix/dev.json`: where everything is, for the command, for tests and for people's own scripts.
//!
//! Invariant: it is there only while everything is ready. It holds a token, so only its owner can read it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use helix_service::disk::write_secret;
use serde::Serialize;

use super::fleet::{BASE_DOMAIN, Edge, Fleet, url};
use super::home::Home;

#[derive(Serialize)]
struct Info<'a> {
    api: String,
    console: Option<String>,
    base_domain: &'static str,
    nats: String,
    regions: BTreeMap<&'a str, Vec<EdgeInfo<'a>>>,
    token: &'a str,
}

#[derive(Serialize)]
struct EdgeInfo<'a> {
    edge: &'a str,
    http: String,
    https: Option<String>,
    admin: String,
}

/// The file, removed when this is dropped.
#[derive(Debug)]
pub(super) struct InfoFile(PathBuf);

impl InfoFile {
    /// Removes what a killed one left, so that nobody takes it for a fleet that is ready.
    pub(super) fn clear(home: &Home) {
        // Missing is what it should be.
        let _ = fs::remove_file(home.info());
    }

    /// Says that everything is ready.
    pub(super) fn write(home: &Home, fleet: &Fleet) -> anyhow::Result<Self> {
        let regions = fleet.regions().into_iter();
        let info = Info {
            api: url(fleet.api),
            console: None,
            base_domain: BASE_DOMAIN,
            nats: fleet.nats_url(),
            regions: regions
                .map(|(region, edges)| (region.as_str(), edges.into_iter().map(edge).collect()))
                .collect(),
            token: &fleet.token,
        };
        write_secret(&home.info(), &serde_json::to_vec_pretty(&info)?)?;
        Ok(Self(home.info()))
    }
}

impl Drop for InfoFile {
    fn drop(&mut self) {
        // With it gone already there is nothing to take back.
        let _ = fs::remove_file(&self.0);
    }
}

fn edge(edge: &Edge) -> EdgeInfo<'_> {
    EdgeInfo {
        edge: edge.edge.as_str(),
        http: url(edge.http),
        https: Some(format!("https://127.0.0.1:{}", edge.https)),
        admin: url(edge.admin),
    }
}
