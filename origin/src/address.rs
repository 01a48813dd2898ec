//! Where sites answer: hosts under the base domain, and the URLs people are shown. Pure.

use helix_routing::host::{Host, HostPattern, join};
use helix_routing::id::{Environment, ProjectName, ReleaseId, SiteId};

/// The shape of every address.
#[derive(Clone, Debug)]
pub struct Addresses {
    base: Host,
    site_port: u16,
}

impl Addresses {
    /// Hosts under `base`; edges answer visitors at `site_port`.
    #[must_use]
    pub const fn new(base: Host, site_port: u16) -> Self {
        Self { base, site_port }
    }

    /// The base domain.
    #[must_use]
    pub const fn base(&self) -> &Host {
        &self.base
    }

    /// The site's own host: `<project>.<base>`, or `pr-<n>.preview.<project>.<base>`.
    #[must_use]
    pub fn host(&self, site: &SiteId) -> Host {
        match site.environment {
            Environment::Production => self.below(site.project.as_str(), &self.base),
            Environment::Preview(number) => {
                self.below(&format!("pr-{number}"), &self.alias(&site.project))
            }
        }
    }

    /// `preview.<project>.<base>`, which shows the newest settled preview.
    #[must_use]
    pub fn alias(&self, project: &ProjectName) -> Host {
        self.below("preview", &self.below(project.as_str(), &self.base))
    }

    /// Where visitors reach the site.
    #[must_use]
    pub fn site_url(&self, site: &SiteId) -> String {
        self.url(&self.host(site))
    }

    /// Where a release answers for as long as it is kept.
    #[must_use]
    pub fn release_url(&self, project: &ProjectName, release: &ReleaseId) -> String {
        self.url(&self.release_host(project, release))
    }

    /// A release's own host: `<release>.preview.<project>.<base>`.
    #[must_use]
    pub fn release_host(&self, project: &ProjectName, release: &ReleaseId) -> Host {
        self.below(release.as_str(), &self.alias(project))
    }

    /// The URL of a host.
    #[must_use]
    pub fn url(&self, host: &Host) -> String {
        match self.site_port {
            80 => format!("http://{host}/"),
            port => format!("http://{host}:{port}/"),
        }
    }

    /// The site's own host as it is registered.
    #[must_use]
    pub fn pattern(&self, site: &SiteId) -> HostPattern {
        HostPattern::Exact(self.host(site))
    }

    fn below(&self, label: &str, parent: &Host) -> Host {
        join(label, parent).expect(
            "labels are checked names, and the config refuses a base domain that leaves no room",
        )
    }
}

/// Longest base domain that leaves room for `<release>.preview.<project>.` before it.
pub const MAX_BASE_BYTES: usize = 253 - (20 + 1 + 7 + 1 + 40 + 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_site_and_release_has_its_address() {
        let addresses = Addresses::new("helix.localhost".parse().unwrap(), 8081);
        let site = |text: &str| text.parse::<SiteId>().unwrap();
        assert_eq!(
            addresses.site_url(&site("hello/production")),
            "http://hello.helix.localhost:8081/"
        );
        assert_eq!(
            addresses.site_url(&site("hello/preview/7")),
            "http://pr-7.preview.hello.helix.localhost:8081/"
        );
        let release = "0123456789abcdef0123".parse().unwrap();
        let plain = Addresses::new("example.com".parse().unwrap(), 80);
        assert_eq!(
            plain.release_url(&"shop".parse().unwrap(), &release),
            "http://0123456789abcdef0123.preview.shop.example.com/"
        );
    }
}
