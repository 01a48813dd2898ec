//! Purges: what edges are to forget of the responses they keep, and which of them have.
//!
//! Invariant: a purge is one more entry in the record of its (site, region), in one transaction for all regions. Who
//! has applied it is only heard, from the edges that say so; nothing here waits for them.

use helix_routing::api::{MAX_PURGE_PART_BYTES, MAX_PURGE_PARTS, NewPurge, PurgeView, RegionPurge};
use helix_routing::id::{Generation, RegionId, SiteId};
use helix_routing::record::{PurgeEntry, PurgeRecord, PurgeUrl};
use helix_service::clock;
use http::Uri;

use crate::feed::records::{self, RecordError};
use crate::fleet::Roster;
use crate::store::{Connection, StoreError, Tx};

/// A purge cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// It says what no response could fit.
    #[error("{what} {part:?} {problem}")]
    Part {
        /// A URL or a tag.
        what: &'static str,
        /// As it was sent.
        part: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Too many URLs and tags.
    #[error("the purge names {count} URLs and tags, the most is {MAX_PURGE_PARTS}")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// There is no such region.
    #[error("there is no region {0}")]
    UnknownRegion(RegionId),
    /// No region has the site.
    #[error("site {0} was never deployed to any of these regions")]
    UnknownSite(SiteId),
    /// The record could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Adds a purge to the record of each region it is for, and says which regions those are.
///
/// # Errors
/// As [`PurgeError`] says.
pub async fn purge(
    tx: &mut Tx,
    site: &SiteId,
    new: &NewPurge,
    all: &[RegionId],
) -> Result<Vec<RegionId>, PurgeError> {
    let entry = entry(new)?;
    let wanted = new.regions.as_deref().unwrap_or(all);
    if let Some(unknown) = wanted.iter().find(|region| !all.contains(region)) {
        return Err(PurgeError::UnknownRegion(unknown.clone()));
    }
    let mut purged = Vec::new();
    for region in all.iter().filter(|region| wanted.contains(region)) {
        if records::site(tx, region, site).await?.is_none() {
            continue;
        }
        let held = records::purges(tx, region, site).await?;
        let epoch = tx.epoch();
        let blank = || PurgeRecord::blank(site.clone(), region.clone(), epoch);
        let mut record = held.unwrap_or_else(blank);
        record.push(epoch, entry.clone());
        records::put_purges(tx, &record).await?;
        purged.push(region.clone());
    }
    if purged.is_empty() {
        return Err(PurgeError::UnknownSite(site.clone()));
    }
    Ok(purged)
}

/// How far the newest purges of `site` have come in these regions; those without any are left out.
///
/// # Errors
/// When the database fails.
pub async fn view(
    connection: &mut Connection,
    site: &SiteId,
    regions: &[RegionId],
    roster: &Roster,
) -> Result<PurgeView, PurgeError> {
    let mut view = PurgeView {
        site: site.clone(),
        regions: Vec::new(),
    };
    for region in regions {
        if let Some(record) = records::purges(connection, region, site).await? {
            let shown = region_view(site, region, record.generation, roster);
            view.regions.push(shown);
        }
    }
    Ok(view)
}

fn region_view(
    site: &SiteId,
    region: &RegionId,
    purge: Generation,
    roster: &Roster,
) -> RegionPurge {
    let fleet = roster.snapshot();
    let edges = fleet.regions.get(region).cloned().unwrap_or_default();
    let applied = roster.purged(site);
    let mut shown = RegionPurge {
        region: region.clone(),
        purge,
        confirmed: Vec::new(),
        waiting: Vec::new(),
        absent: Vec::new(),
    };
    for edge in edges.registered {
        let has = applied.get(&edge).is_some_and(|applied| *applied >= purge);
        let list = match (has, edges.live.contains(&edge)) {
            (true, _) => &mut shown.confirmed,
            (false, true) => &mut shown.waiting,
            (false, false) => &mut shown.absent,
        };
        list.push(edge);
    }
    shown
}

fn entry(new: &NewPurge) -> Result<PurgeEntry, PurgeError> {
    let count = new.urls.len() + new.tags.len();
    if count > MAX_PURGE_PARTS {
        return Err(PurgeError::TooMany { count });
    }
    let tags = new.tags.iter().map(|tag| check_tag(tag));
    Ok(PurgeEntry {
        at: clock::now(),
        release: new.release.clone(),
        urls: new
            .urls
            .iter()
            .map(|url| parse(url))
            .collect::<Result<_, _>>()?,
        tags: tags.collect::<Result<_, _>>()?,
        stale: new.stale,
    })
}

fn check_tag(tag: &str) -> Result<String, PurgeError> {
    let refused = |problem| PurgeError::Part {
        what: "tag",
        part: tag.chars().take(100).collect(),
        problem,
    };
    if tag.is_empty() || tag.chars().any(char::is_control) {
        return Err(refused("can be no response's"));
    }
    if tag.len() > MAX_PURGE_PART_BYTES {
        return Err(refused("is too long"));
    }
    Ok(tag.to_owned())
}

/// Host and target as edges see them: in lower case, and without the port that the scheme has anyway.
fn parse(text: &str) -> Result<PurgeUrl, PurgeError> {
    let refused = |problem| PurgeError::Part {
        what: "URL",
        part: text.chars().take(100).collect(),
        problem,
    };
    if text.len() > MAX_PURGE_PART_BYTES {
        return Err(refused("is too long"));
    }
    let url: Uri = text.parse().map_err(|_| refused("is malformed"))?;
    let port = match url.scheme_str() {
        Some("http") => ":80",
        Some("https") => ":443",
        _ => return Err(refused("has no scheme http or https")),
    };
    let authority = url.authority().map_or("", |authority| authority.as_str());
    if authority.is_empty() || authority.contains('@') {
        return Err(refused("has no host, or more than one"));
    }
    let authority = authority.to_ascii_lowercase();
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    Ok(PurgeUrl {
        authority: authority
            .strip_suffix(port)
            .unwrap_or(&authority)
            .to_owned(),
        target: target.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_edges_see_them() {
        for (text, authority, target) in [
            ("https://Shop.example/a?b=c", "shop.example", "/a?b=c"),
            ("https://shop.example", "shop.example", "/"),
            ("https://shop.example:443/a", "shop.example", "/a"),
            ("http://shop.example:443/a", "shop.example:443", "/a"),
            ("http://shop.example:80/a#b", "shop.example", "/a"),
            ("http://[::1]:8080/A", "[::1]:8080", "/A"),
        ] {
            let url = parse(text).unwrap();
            assert_eq!(
                (&*url.authority, &*url.target),
                (authority, target),
                "{text}"
            );
        }
        let long = format!("https://shop.example/{}", "x".repeat(MAX_PURGE_PART_BYTES));
        for text in [
            "",
            "/a",
            "shop.example/a",
            "ftp://shop.example/",
            "https://me@shop.example/",
            "https:///a",
            &long,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        for tag in ["", "a\nb", &long] {
            assert!(check_tag(tag).is_err(), "{tag}");
        }
        assert_eq!(check_tag("news, old").unwrap(), "news, old");
    }

    #[test]
    fn a_purge_names_only_so_many_things() {
        let mut new = NewPurge {
            environment: helix_routing::id::Environment::Production,
            urls: Vec::new(),
            tags: vec!["a".to_owned(); MAX_PURGE_PARTS],
            release: None,
            regions: None,
            stale: true,
        };
        assert!(entry(&new).unwrap().stale);
        new.urls.push("https://shop.example/".to_owned());
        assert!(matches!(
            entry(&new),
            Err(PurgeError::TooMany { count: 31 })
        ));
    }
}
