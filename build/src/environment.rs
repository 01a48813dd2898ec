//! What a build finds in its environment.

use std::collections::BTreeMap;
use std::path::Path;

use crate::dependencies;
use crate::detect::Plan;
use crate::detect::files::join;
use crate::sandbox::{PROXY_PORT, SPACE};
use crate::toolchain::Tools;

/// Folders of the system that programs are looked for in, after the build's own.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Whom this machine trusts, and so do builds: an operator's own registry may be signed by nobody else. It is seen inside.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The first Node whose own fetch takes a proxy from its environment without a warning.
const NODE_KNOWS_PROXIES: u64 = 24;

/// What a build may change of what follows.
const USUAL: [(&str, &str); 5] = [
    ("CI", "true"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("NO_COLOR", "1"),
    ("BROWSER", "none"),
];

/// All that a build in a sandbox has: what it is `given`, and over that what makes the sandbox work.
#[must_use]
pub fn sandboxed<'a>(
    plan: &Plan,
    tools: &Tools,
    given: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> BTreeMap<String, String> {
    let usual = USUAL.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut env: BTreeMap<String, String> = usual.into();
    env.extend(
        given
            .into_iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    let cache = format!("{SPACE}/cache");
    env.extend(
        plan.manager
            .iter()
            .flat_map(|manager| dependencies::variables(manager, &cache)),
    );
    let mut set = |name: &str, value: &str| {
        env.insert(name.to_owned(), value.to_owned());
    };
    let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "http_proxy",
        "https_proxy",
        "YARN_HTTP_PROXY",
        "YARN_HTTPS_PROXY",
    ] {
        set(name, &proxy);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        set(name, "localhost,127.0.0.1,::1");
    }
    if plan
        .node
        .as_ref()
        .is_some_and(|node| node.major >= NODE_KNOWS_PROXIES)
    {
        set("NODE_USE_ENV_PROXY", "1");
    }
    if Path::new(CERTIFICATES).is_file() {
        set("NODE_EXTRA_CA_CERTS", CERTIFICATES);
        set("SSL_CERT_FILE", CERTIFICATES);
        set("DENO_TLS_CA_STORE", "system");
    }
    set("HOME", &format!("{SPACE}/home"));
    set("TMPDIR", "/tmp");
    set("HELIX", "1");
    let mut folders = bins(plan, &format!("{SPACE}/source"));
    folders.extend(tools.inside());
    folders.push(SYSTEM_PATH.to_owned());
    set("PATH", &folders.join(":"));
    env
}

/// What a build without a sandbox has besides what is there: programs of the project before others.
#[must_use]
pub fn open(plan: &Plan, source: &Path, path: &str) -> BTreeMap<String, String> {
    let mut folders = bins(plan, &source.display().to_string());
    folders.push(path.to_owned());
    [
        ("PATH".to_owned(), folders.join(":")),
        ("HELIX".to_owned(), "1".to_owned()),
    ]
    .into()
}

/// Programs of the project first, then those of its workspace.
fn bins(plan: &Plan, source: &str) -> Vec<String> {
    let mut folders: Vec<String> = [&plan.root, &plan.install_root]
        .map(|root| format!("{source}/{}", join(root, "node_modules/.bin")))
        .into();
    folders.dedup();
    folders
}
