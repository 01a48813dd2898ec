//! The configuration of the fleet's `nats-server`: one account for origin, one for each edge.
//! *Pure*: values in, text out.
//!
//! Whoever may use the JetStream API of an account can write anywhere in that account, since the
//! server sends its answer to any reply subject it is given. So edges share an account with nobody:
//! origin exports its feed, the direct reads of its streams and a subject for reports, and each
//! edge's account imports those of its own region. Replies then travel under subjects that the
//! server makes up, and an answer cannot be aimed at a record, a report or another edge.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use helix_routing::id::{EdgeId, RegionId};
use helix_routing::key::Scope;
use helix_routing::queue;

/// The account that owns the streams.
pub(crate) const ORIGIN_ACCOUNT: &str = "ORIGIN";
/// The account of workers.
pub(crate) const BUILD_ACCOUNT: &str = "BUILD";

/// Everything the configuration says.
#[derive(Debug)]
pub(crate) struct NatsConfig {
    /// The port clients connect to, on loopback.
    pub(crate) port: u16,
    /// The port of the monitoring pages, on loopback.
    pub(crate) monitor_port: u16,
    /// Where streams are stored.
    pub(crate) store: PathBuf,
    /// Public nkey of origin's user.
    pub(crate) origin: String,
    /// Public nkey of the operator's user, who may override sites and nothing else.
    pub(crate) operator: String,
    /// Public nkey of the workers' user, who takes builds off the queue and nothing else.
    pub(crate) worker: String,
    /// Every edge.
    pub(crate) edges: Vec<EdgeUser>,
}

/// The one user of an edge's account.
#[derive(Debug)]
pub(crate) struct EdgeUser {
    /// The edge.
    pub(crate) edge: EdgeId,
    /// Its region.
    pub(crate) region: RegionId,
    /// Public nkey of its user.
    pub(crate) nkey: String,
}

/// The account of an edge. Origin learns it from the server with each report, so a report is never
/// taken for another edge's.
pub(crate) fn edge_account(edge: &EdgeId) -> String {
    format!("EDGE_{edge}")
}

impl NatsConfig {
    /// The text of the configuration file.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        self.write(&mut text)
            .expect("writing to a string cannot fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        self.write_server(text)?;
        writeln!(text, "accounts {{")?;
        self.write_origin(text)?;
        self.write_worker(text)?;
        for edge in &self.edges {
            write_edge(text, edge)?;
        }
        writeln!(text, "}}")
    }

    fn write_server(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "server_name: helix-nats")?;
        writeln!(text, "listen: \"127.0.0.1:{}\"", self.port)?;
        writeln!(text, "http: \"127.0.0.1:{}\"", self.monitor_port)?;
        writeln!(text, "max_payload: 1MB")?;
        // Half-open connections are noticed within 20 s; a reader that does not read is cut after 5 s.
        writeln!(
            text,
            "write_deadline: \"5s\"\nping_interval: \"10s\"\nping_max: 2"
        )?;
        writeln!(text, "jetstream {{")?;
        writeln!(
            text,
            "  store_dir: {}",
            quoted(&self.store.to_string_lossy())
        )?;
        // An acknowledged record survives a power cut: the default syncs only every two minutes.
        writeln!(text, "  sync_interval: always")?;
        writeln!(text, "  max_memory_store: 64MB\n  max_file_store: 20GB\n}}")
    }

    fn write_origin(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "  {ORIGIN_ACCOUNT} {{\n    jetstream: enabled")?;
        writeln!(text, "    users: [")?;
        writeln!(text, "      {{ nkey: {} }}", self.origin)?;
        self.write_operator(text)?;
        writeln!(text, "    ]")?;
        writeln!(text, "    exports: [")?;
        let asked = queue::ASKS.map(|asked| format!("$JS.API.{asked}"));
        for subject in asked.iter().map(String::as_str).chain([queue::ACK]) {
            writeln!(
                text,
                "      {{ service: \"{subject}\", response_type: stream, accounts: [\"{BUILD_ACCOUNT}\"] }}"
            )?;
        }
        write_exports(text, &Scope::Global)?;
        for (region, edges) in self.by_region() {
            write_exports(text, &Scope::Region(region.clone()))?;
            // Every edge's reports are exported to that edge's account alone.
            for edge in edges {
                let (subject, account) = (reports(edge), edge_account(&edge.edge));
                writeln!(
                    text,
                    "      {{ service: \"{subject}\", accounts: [\"{account}\"] }}"
                )?;
            }
        }
        writeln!(text, "    ]\n  }}")
    }

    /// An operator reads and writes single records of regions. Signatures say what of it counts.
    fn write_operator(&self, text: &mut String) -> std::fmt::Result {
        let mut publish = Vec::new();
        let mut subscribe = vec![String::from("_INBOX.operator.>")];
        for region in self.by_region().into_keys() {
            let scope = Scope::Region(region.clone());
            let prefix = scope.stored_prefix();
            publish.push(format!("$JS.API.DIRECT.GET.{}.>", scope.stream()));
            publish.push(format!("{prefix}ctl.term"));
            publish.push(format!("{prefix}cut.>"));
            subscribe.push(scope.beacon());
        }
        writeln!(
            text,
            "      {{ nkey: {}, permissions: {{ publish: [{}], subscribe: [{}] }} }}",
            self.operator,
            list(publish.iter()),
            list(subscribe.iter())
        )
    }

    /// Workers run what strangers wrote: they share an account with nobody else, and import the queue alone.
    fn write_worker(&self, text: &mut String) -> std::fmt::Result {
        let queue = queue::ASKS.map(|asked| format!("{}.{asked}", queue::API));
        writeln!(
            text,
            "  {BUILD_ACCOUNT} {{\n    users: [ {{ nkey: {}, permissions: {{ publish: [{}], subscribe: [\"_INBOX.>\"] }} }} ]\n    imports: [",
            self.worker,
            list(queue.iter().chain([&queue::ACK.to_owned()]))
        )?;
        for asked in queue::ASKS {
            writeln!(
                text,
                "      {{ service: {{ account: {ORIGIN_ACCOUNT}, subject: \"$JS.API.{asked}\" }}, to: \"{}.{asked}\" }}",
                queue::API
            )?;
        }
        writeln!(
            text,
            "      {{ service: {{ account: {ORIGIN_ACCOUNT}, subject: \"{}\" }} }}\n    ]\n  }}",
            queue::ACK
        )
    }

    fn by_region(&self) -> BTreeMap<&RegionId, Vec<&EdgeUser>> {
        let mut regions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for edge in &self.edges {
            regions.entry(&edge.region).or_default().push(edge);
        }
        regions
    }
}

fn write_exports(text: &mut String, scope: &Scope) -> std::fmt::Result {
    writeln!(text, "      {{ stream: \"{}\" }}", feed(scope))?;
    for subject in direct_reads(scope) {
        writeln!(
            text,
            "      {{ service: \"{subject}\", response_type: stream }}"
        )?;
    }
    Ok(())
}

fn write_edge(text: &mut String, user: &EdgeUser) -> std::fmt::Result {
    let scopes = [Scope::Global, Scope::Region(user.region.clone())];
    let feeds: Vec<String> = scopes.iter().map(feed).collect();
    let reads: Vec<String> = scopes.iter().flat_map(direct_reads).collect();
    let reports = reports(user);

    writeln!(text, "  \"{}\" {{", edge_account(&user.edge))?;
    writeln!(text, "    users: [ {{ nkey: {}, permissions: {{", user.nkey)?;
    writeln!(
        text,
        "      publish: [{}]",
        list(reads.iter().chain([&reports]))
    )?;
    let inbox = String::from("_INBOX.>");
    writeln!(
        text,
        "      subscribe: [{}]",
        list(feeds.iter().chain([&inbox]))
    )?;
    writeln!(text, "    }} }} ]\n    imports: [")?;
    for subject in &feeds {
        writeln!(
            text,
            "      {{ stream: {{ account: {ORIGIN_ACCOUNT}, subject: \"{subject}\" }} }}"
        )?;
    }
    for subject in &reads {
        writeln!(
            text,
            "      {{ service: {{ account: {ORIGIN_ACCOUNT}, subject: \"{subject}\" }} }}"
        )?;
    }
    // `share` makes the server say which account a report came from.
    writeln!(
        text,
        "      {{ service: {{ account: {ORIGIN_ACCOUNT}, subject: \"{reports}\" }}, share: true }}"
    )?;
    writeln!(text, "    ]\n  }}")
}

fn feed(scope: &Scope) -> String {
    format!("{}>", scope.feed_prefix())
}

fn direct_reads(scope: &Scope) -> [String; 2] {
    [scope.stream(), scope.snapshot_stream()].map(|stream| format!("$JS.API.DIRECT.GET.{stream}"))
}

fn reports(user: &EdgeUser) -> String {
    format!("rpt.{}.{}.>", user.region, user.edge)
}

fn list<'a>(subjects: impl Iterator<Item = &'a String>) -> String {
    subjects
        .map(|subject| format!("\"{subject}\""))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A string as the configuration language reads it back.
fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| {
            matches!(c, '"' | '\\')
                .then_some('\\')
                .into_iter()
                .chain([c])
        })
        .collect();
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NatsConfig {
        let edge = |edge: &str, region: &str, nkey: &str| EdgeUser {
            edge: edge.parse().unwrap(),
            region: region.parse().unwrap(),
            nkey: nkey.to_owned(),
        };
        NatsConfig {
            port: 4222,
            monitor_port: 8222,
            store: PathBuf::from("/srv/a \"b\"/nats"),
            origin: "UORIGIN".to_owned(),
            operator: "UOPERATOR".to_owned(),
            worker: "UWORKER".to_owned(),
            edges: vec![edge("fra-1", "fra", "UF1"), edge("iad-1", "iad", "UI1")],
        }
    }

    fn account<'a>(text: &'a str, name: &str) -> &'a str {
        let start = text.find(&format!("  {name} {{")).unwrap();
        let length = text[start..].find("\n  }").unwrap();
        &text[start..start + length]
    }

    #[test]
    fn an_edge_account_names_nothing_of_another_region_or_edge() {
        let text = config().render();
        let fra = account(&text, "\"EDGE_fra-1\"");
        assert!(!fra.contains("iad"), "{fra}");
        for subject in [
            "rpt.fra.fra-1.>",
            "edge.r.fra.>",
            "$JS.API.DIRECT.GET.KV_r_fra",
            "$JS.API.DIRECT.GET.OBJ_snap_g",
        ] {
            assert!(fra.contains(subject), "{subject} is not in {fra}");
        }
        assert!(!fra.contains("jetstream"), "{fra}");
    }

    #[test]
    fn every_acknowledged_write_is_synced() {
        assert!(config().render().contains("sync_interval: always"));
    }

    #[test]
    fn paths_are_quoted() {
        assert!(
            config()
                .render()
                .contains(r#"store_dir: "/srv/a \"b\"/nats""#)
        );
    }
}
