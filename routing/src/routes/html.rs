//! How pages are found by their path, as Cloudflare's static assets define it.

use serde::{Deserialize, Serialize};

/// Which paths a page has, and which of them is the canonical one that the others redirect to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HtmlHandling {
    /// `/a` for `a.html`, `/a/` for `a/index.html`.
    #[default]
    AutoTrailingSlash,
    /// Always with a slash.
    ForceTrailingSlash,
    /// Always without.
    DropTrailingSlash,
    /// Only the exact name.
    None,
}

/// What a path gets that means no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotFoundHandling {
    /// The nearest `404.html`, with status 404.
    #[default]
    #[serde(rename = "404-page")]
    Page,
    /// `index.html`, with status 200, for pages of an application that routes by itself.
    #[serde(rename = "single-page-application")]
    SinglePageApplication,
    /// A plain 404.
    #[serde(rename = "none")]
    None,
}
