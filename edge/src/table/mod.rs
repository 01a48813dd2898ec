//! Which site, and which release of it, a host means.
//!
//! One pointer per site, shared by all its hosts: publishing swaps it, and a request that has loaded
//! it keeps what it loaded. Hosts and sites may become known in either order. The table decides
//! nothing: what a site serves is written by the release story, and read here.

mod hosts;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use helix_routing::host::{BaseHost, Host, HostPattern, under_base};
use helix_routing::id::{Generation, ProjectName, ReleaseId, SiteId};
use helix_routing::protection::Protection;
use http::HeaderValue;

use self::hosts::Hosts;
use crate::breaks::Breaks;
use crate::counted::Counted;
use crate::in_flight::InFlight;
use crate::left::AllLeft;
use crate::protection::Attempts;
use crate::release::Release;
use crate::visitor::{Split, Visitors};

/// Parts that hosts lie in. A million fill one with sixteen thousand, which are written within a few milliseconds.
pub const HOST_PARTS: usize = 64;

/// What an edge serves of one site, replaced whole.
#[derive(Debug)]
pub struct Serving {
    /// The generation of the record this follows.
    pub generation: Generation,
    /// What requests get.
    pub live: Option<Arc<Release>>,
    /// Candidate and previous releases: reached by a release's own name only.
    pub kept: Vec<Arc<Release>>,
    /// The generation as responses name it.
    pub mark: HeaderValue,
    /// Where requests to the live release are counted.
    pub counted: Arc<Counted>,
    /// What of it is in flight.
    pub in_flight: Arc<InFlight>,
    /// What parts the visitors; none where all get the same.
    pub split: Option<Box<Split>>,
    /// Who is let in; everybody where there is none.
    pub protection: Option<Box<Protection>>,
}

impl Default for Serving {
    fn default() -> Self {
        Self::new(Generation::default(), None, Vec::new())
    }
}

impl Serving {
    /// What is served under `generation`, counted anew.
    #[must_use]
    pub fn new(
        generation: Generation,
        live: Option<Arc<Release>>,
        kept: Vec<Arc<Release>>,
    ) -> Self {
        Self {
            generation,
            live,
            kept,
            mark: mark(generation),
            counted: Arc::default(),
            in_flight: Arc::default(),
            split: None,
            protection: None,
        }
    }

    /// The release with this id, live or kept.
    #[must_use]
    pub fn release(&self, id: &ReleaseId) -> Option<&Arc<Release>> {
        self.live
            .iter()
            .chain(&self.kept)
            .find(|release| release.id == *id)
    }
}

/// Of exactly the bytes that it needs: a hundred thousand sites have one each, and what is made of a number directly has several times as many.
fn mark(generation: Generation) -> HeaderValue {
    HeaderValue::from_str(&generation.to_string()).unwrap_or(HeaderValue::from_static("0"))
}

/// A site and what it serves now. Its hosts point here, also before its record has arrived.
#[derive(Debug)]
pub struct Site {
    /// The site.
    pub id: Arc<SiteId>,
    /// None while there is no record of it.
    serving: ArcSwapOption<Serving>,
    /// How many hosts and wildcards point here. Changed by whoever writes the table.
    hosts: AtomicUsize,
}

impl Site {
    fn unknown(id: SiteId) -> Arc<Self> {
        Arc::new(Self {
            id: Arc::new(id),
            serving: ArcSwapOption::empty(),
            hosts: AtomicUsize::new(0),
        })
    }

    /// What it serves now; nothing while its record has not arrived. A request loads this once and keeps it to its last byte.
    #[must_use]
    pub fn serving(&self) -> Arc<Serving> {
        self.serving.load_full().unwrap_or_default()
    }

    fn is_known(&self) -> bool {
        self.serving.load().is_some()
    }
}

/// Why a host means a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRule {
    /// The host itself is registered.
    Exact(Host),
    /// `*.` and this suffix are registered.
    Wildcard(Host),
    /// The host names this release.
    Release(ReleaseId),
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => write!(f, "{host}"),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Release(release) => write!(f, "release {release}"),
        }
    }
}

/// What a host means.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// A site's live release, if it has one.
    Site {
        /// The site.
        site: Arc<Site>,
        /// Why.
        rule: HostRule,
    },
    /// One release by its own name.
    Release {
        /// The site it belongs to.
        site: Arc<Site>,
        /// What that site serves, as loaded when the release was found.
        serving: Arc<Serving>,
        /// The release.
        release: Arc<Release>,
    },
    /// Nothing here.
    Nobody,
}

/// Hosts, sites, and what they serve. Read by every request, written when a record arrives.
#[derive(Debug)]
pub struct Table {
    base: Host,
    exact: Hosts<Site>,
    /// By suffix, without the `*.`.
    wildcard: Hosts<Site>,
    /// Every site that has a record, or a host, by its id. Those of a project lie together, so that a release is found by its name.
    sites: Hosts<Site>,
    /// Rises with every change, after it can be read.
    version: AtomicU64,
    /// Upstreams' responses, kept by site and release.
    cache: crate::cache::Cache,
    /// Releases that are no longer live, and not done.
    left: AllLeft,
    /// What visitors are drawn with.
    visitors: Visitors,
    /// How often passwords were tried.
    attempts: Attempts,
    /// Port on which visitors reach this edge over TLS.
    secure_port: OnceLock<u16>,
    /// Held while anything changes. Readers never wait for it.
    writing: Mutex<()>,
}

impl Table {
    /// An empty table of an edge whose own hosts lie under `base`.
    #[must_use]
    pub fn new(base: Host) -> Self {
        Self::with_cache(base, crate::cache::Cache::default())
    }

    /// The same, with this cache of upstreams' responses.
    #[must_use]
    pub fn with_cache(base: Host, cache: crate::cache::Cache) -> Self {
        Self {
            base,
            exact: Hosts::default(),
            wildcard: Hosts::default(),
            sites: Hosts::grouped(),
            version: AtomicU64::new(0),
            cache,
            left: AllLeft::default(),
            visitors: Visitors::default(),
            attempts: Attempts::default(),
            secure_port: OnceLock::new(),
            writing: Mutex::new(()),
        }
    }

    /// Rises with every change. What was read after it was loaded is at least as new, so that something made
    /// of that may be used as long as the version stays.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Port on which visitors reach this edge over TLS, if they do.
    #[must_use]
    pub fn secure_port(&self) -> Option<u16> {
        self.secure_port.get().copied()
    }

    /// Sets that port. The first one stays.
    pub fn set_secure_port(&self, port: u16) {
        if self.secure_port.set(port).is_ok() {
            self.changed();
        }
    }

    /// Releases that are no longer live, and on which something is still in flight.
    #[must_use]
    pub const fn left(&self) -> &AllLeft {
        &self.left
    }

    /// The domain that the edge's own hosts lie under.
    #[must_use]
    pub const fn base(&self) -> &Host {
        &self.base
    }

    /// Every host, and every wildcard, that means `site`. Looks through all of them.
    #[must_use]
    pub fn hosts_of(&self, site: &SiteId) -> Vec<HostPattern> {
        let mut found = Vec::new();
        let mut look = |hosts: &Hosts<Site>, pattern: fn(Host) -> HostPattern| {
            hosts.for_each(|name, of| {
                if *of.id == *site {
                    found.extend(name.parse().ok().map(pattern));
                }
            });
        };
        look(&self.exact, HostPattern::Exact);
        look(&self.wildcard, HostPattern::Wildcard);
        found
    }

    /// How many hosts and wildcards are routed.
    #[must_use]
    pub fn host_count(&self) -> usize {
        self.exact.len() + self.wildcard.len()
    }

    /// The part of the table that holds this host or wildcard, below [`HOST_PARTS`]. Many changes of one part cost little more than one.
    #[must_use]
    pub fn part_of(&self, pattern: &HostPattern) -> usize {
        match pattern {
            HostPattern::Exact(host) => self.exact.part(host.as_str(), HOST_PARTS),
            HostPattern::Wildcard(suffix) => self.wildcard.part(suffix.as_str(), HOST_PARTS),
        }
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Upstreams' responses that are kept.
    #[must_use]
    pub const fn cache(&self) -> &crate::cache::Cache {
        &self.cache
    }

    /// What visitors are drawn with.
    #[must_use]
    pub const fn visitors(&self) -> &Visitors {
        &self.visitors
    }

    /// How often passwords were tried.
    #[must_use]
    pub const fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Routes a host, or a wildcard, to a site; or nowhere any more.
    pub fn set_host(&self, pattern: &HostPattern, site: Option<&SiteId>) {
        self.set_hosts([(pattern, site)]);
    }

    /// Does the same with many at once, which takes far less time than one after the other. Of several changes of one host the last counts.
    pub fn set_hosts<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a HostPattern, Option<&'a SiteId>)>,
    ) {
        let _writing = self.writing();
        let (mut exact, mut wildcard) = (Vec::new(), Vec::new());
        let mut breaks = Breaks::begin();
        for (pattern, site) in changes {
            breaks.may_be_due();
            let site = site.map(|site| self.known(site));
            match pattern {
                HostPattern::Exact(host) => exact.push((host.as_str(), site)),
                HostPattern::Wildcard(suffix) => wildcard.push((suffix.as_str(), site)),
            }
        }
        for moves in [
            self.exact.apply(exact.into_iter()),
            self.wildcard.apply(wildcard.into_iter()),
        ] {
            for site in moves.come {
                site.hosts.fetch_add(1, Ordering::Relaxed);
            }
            for site in moves.gone {
                site.hosts.fetch_sub(1, Ordering::Relaxed);
                self.forget_unless_used(&site);
            }
        }
        self.changed();
    }

    /// Serves `serving` for `site` from the next request on.
    pub fn publish(&self, site: &SiteId, serving: Serving) {
        let _writing = self.writing();
        let held = self.known(site);
        held.serving.store(Some(Arc::new(serving)));
        self.changed();
    }

    /// Serves nothing for `site` any more. Its hosts stay known.
    pub fn remove(&self, site: &SiteId) {
        let _writing = self.writing();
        if let Some(held) = self.sites.get(&site.to_string()) {
            held.serving.store(None);
            self.forget_unless_used(&held);
        }
        self.changed();
    }

    /// The site, made if nobody has named it before.
    fn known(&self, site: &SiteId) -> Arc<Site> {
        let name = site.to_string();
        if let Some(held) = self.sites.get(&name) {
            return held;
        }
        let new = Site::unknown(site.clone());
        let made = (name.as_str(), Some(Arc::clone(&new)));
        self.sites.apply(std::iter::once(made));
        new
    }

    /// Lets go of a site that has neither record nor host.
    fn forget_unless_used(&self, site: &Site) {
        if !site.is_known() && site.hosts.load(Ordering::Relaxed) == 0 {
            let name = site.id.to_string();
            self.sites.apply(std::iter::once((name.as_str(), None)));
        }
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The site, if anything was published for it.
    #[must_use]
    pub fn site(&self, site: &SiteId) -> Option<Arc<Site>> {
        self.sites
            .get(&site.to_string())
            .filter(|site| site.is_known())
    }

    /// Every site, in order of its id.
    #[must_use]
    pub fn sites(&self) -> Vec<Arc<Site>> {
        let mut sites = Vec::new();
        self.sites.for_each(|_, site| {
            sites.extend(site.is_known().then(|| Arc::clone(site)));
        });
        sites.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        sites
    }

    /// What `host` means: the host itself, else a release's own name, else a wildcard over one label.
    #[must_use]
    pub fn resolve(&self, host: Host) -> Resolved {
        if let Some(site) = self.exact.get(host.as_str()) {
            let rule = HostRule::Exact(host);
            return Resolved::Site { site, rule };
        }
        if host.is_within(&self.base) {
            return self.release_named(&host).unwrap_or(Resolved::Nobody);
        }
        self.covered(&host).unwrap_or(Resolved::Nobody)
    }

    /// `<release>.preview.<project>.<base>`, in any site of the project that holds the release. Where one of them is protected,
    /// it is that one: whichever record came first, a release is as open by its own name as its most careful site.
    fn release_named(&self, host: &Host) -> Option<Resolved> {
        let BaseHost::PreviewLabel { label, project } = under_base(host, &self.base)? else {
            return None;
        };
        let release: ReleaseId = label.parse().ok()?;
        let project: ProjectName = project.parse().ok()?;
        let mut open = None;
        for site in self.sites.group(project.as_str()) {
            let serving = site.serving();
            let Some(release) = serving.release(&release).map(Arc::clone) else {
                continue;
            };
            let is_protected = serving.protection.is_some();
            let found = Resolved::Release {
                site,
                serving,
                release,
            };
            if is_protected {
                return Some(found);
            }
            open.get_or_insert(found);
        }
        open
    }

    fn covered(&self, host: &Host) -> Option<Resolved> {
        let (_, suffix) = host.split_label()?;
        let site = self.wildcard.get(suffix)?;
        let rule = HostRule::Wildcard(suffix.parse().ok()?);
        Some(Resolved::Site { site, rule })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use helix_routing::id::Digest;

    fn release(id: &str) -> Arc<Release> {
        let digest = Digest::from_hex(&"0".repeat(64)).unwrap();
        let files = [("index.html", "text/html", Bytes::from_static(b"hello"))];
        Arc::new(Release::from_memory(id.parse().unwrap(), digest, files))
    }

    fn table() -> Table {
        Table::new("helix.localhost".parse().unwrap())
    }

    fn meaning(table: &Table, host: &str) -> String {
        match table.resolve(host.parse().unwrap()) {
            Resolved::Site { site, rule } => {
                let live = site.serving().live.as_ref().map(|live| live.id.to_string());
                format!("{} by {rule}: {}", site.id, live.unwrap_or_default())
            }
            Resolved::Release { site, release, .. } => format!("{} only {}", site.id, release.id),
            Resolved::Nobody => "nobody".to_owned(),
        }
    }

    const A: &str = "aaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn hosts_and_sites_may_arrive_in_either_order() {
        let site: SiteId = "shop/production".parse().unwrap();
        let host = "shop.example".parse().unwrap();
        let live = || Serving::new(Generation(1), Some(release(A)), Vec::new());

        let host_first = table();
        host_first.set_host(&host, Some(&site));
        assert_eq!(
            meaning(&host_first, "shop.example"),
            "shop/production by shop.example: "
        );
        host_first.publish(&site, live());
        assert_eq!(
            meaning(&host_first, "shop.example"),
            format!("shop/production by shop.example: {A}")
        );

        let site_first = table();
        site_first.publish(&site, live());
        assert_eq!(meaning(&site_first, "shop.example"), "nobody");
        site_first.set_host(&host, Some(&site));
        assert_eq!(
            meaning(&site_first, "shop.example"),
            format!("shop/production by shop.example: {A}")
        );
        site_first.set_host(&host, None);
        assert_eq!(meaning(&site_first, "shop.example"), "nobody");
    }

    #[test]
    fn a_wildcard_covers_one_label_and_yields_to_an_exact_host() {
        let table = table();
        table.set_host(
            &"*.shop.example".parse().unwrap(),
            Some(&"shop/production".parse().unwrap()),
        );
        table.set_host(
            &"b.shop.example".parse().unwrap(),
            Some(&"other/production".parse().unwrap()),
        );
        assert_eq!(
            meaning(&table, "a.shop.example"),
            "shop/production by *.shop.example: "
        );
        assert_eq!(
            meaning(&table, "b.shop.example"),
            "other/production by b.shop.example: "
        );
        assert_eq!(meaning(&table, "a.a.shop.example"), "nobody");
        assert_eq!(meaning(&table, "shop.example"), "nobody");
    }

    #[test]
    fn no_wildcard_reaches_under_the_base_domain() {
        let table = table();
        table.set_host(
            &"*.helix.localhost".parse().unwrap(),
            Some(&"shop/production".parse().unwrap()),
        );
        table.set_host(
            &"*.preview.shop.helix.localhost".parse().unwrap(),
            Some(&"shop/production".parse().unwrap()),
        );
        assert_eq!(meaning(&table, "shop.helix.localhost"), "nobody");
        assert_eq!(
            meaning(&table, "pr-1.preview.shop.helix.localhost"),
            "nobody"
        );
    }

    #[test]
    fn a_release_has_its_own_name_while_any_site_of_its_project_holds_it() {
        let table = table();
        let production: SiteId = "shop/production".parse().unwrap();
        let preview: SiteId = "shop/preview/7".parse().unwrap();
        table.publish(
            &production,
            Serving::new(Generation(1), Some(release(A)), Vec::new()),
        );
        table.publish(
            &preview,
            Serving::new(Generation(4), None, vec![release(B)]),
        );
        let named = |release: &str, project: &str| {
            meaning(
                &table,
                &format!("{release}.preview.{project}.helix.localhost"),
            )
        };
        assert_eq!(named(A, "shop"), format!("shop/production only {A}"));
        assert_eq!(named(B, "shop"), format!("shop/preview/7 only {B}"));
        assert_eq!(named(A, "other"), "nobody");
        table.remove(&preview);
        assert_eq!(named(B, "shop"), "nobody");
        assert_eq!(named(A, "shop"), format!("shop/production only {A}"));
    }

    #[test]
    fn what_was_loaded_stays_when_the_site_moves_on() {
        let table = table();
        let site: SiteId = "shop/production".parse().unwrap();
        table.publish(
            &site,
            Serving::new(Generation(1), Some(release(A)), Vec::new()),
        );
        let pinned = table.site(&site).unwrap().serving();
        table.publish(
            &site,
            Serving::new(Generation(2), Some(release(B)), Vec::new()),
        );
        assert_eq!(pinned.live.as_ref().unwrap().id.as_str(), A);
        assert_eq!(
            table
                .site(&site)
                .unwrap()
                .serving()
                .live
                .as_ref()
                .unwrap()
                .id
                .as_str(),
            B
        );
        table.remove(&site);
        assert!(table.site(&site).is_none());
    }
}
