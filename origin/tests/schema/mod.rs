//! Events against the schema in `docs/events.schema.json`, with npm's `ajv` as the judge.
#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use helix_origin::store::Store;

const SCRIPT: &str = r"
const require = (await import('node:module')).createRequire(process.argv[1] + '/x.js');
const { readFileSync } = require('node:fs');
const Ajv = require('ajv/dist/2020').default;
const ajv = new Ajv({ allErrors: true, allowUnionTypes: true });
require('ajv-formats').default(ajv);
const fits = ajv.compile(JSON.parse(readFileSync(process.argv[2], 'utf8')));
const events = JSON.parse(readFileSync(0, 'utf8'));
const wrong = events.filter((event) => !fits(event)).map((event) => [event, fits(event), fits.errors.slice(0, 3)]);
if (wrong.length > 0) { console.log(JSON.stringify(wrong[0])); process.exit(1); }
const other = { ...events[0], type: 'nobody.knows' };
if (fits(other)) { console.log('a judge that lets everything pass'); process.exit(1); }
";

/// Every event so far is of a kind that the schema knows, and has what it says. Passed over, and said, without the judge.
#[expect(clippy::print_stderr, reason = "a skipped check says so")]
pub(crate) async fn events_fit(store: &Store) {
    let bodies: Vec<String> = sqlx::query_scalar("SELECT body FROM events ORDER BY number")
        .fetch_all(store.reader())
        .await
        .unwrap();
    assert!(!bodies.is_empty(), "nothing happened");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let judges = root.join(".tools/judges/node_modules");
    if !judges.join("ajv-formats").is_dir() {
        eprintln!("skipped: ajv is not below .tools/judges, run `deploy/setup/tools.py --tests`");
        return;
    }
    let mut node = Command::new("node")
        .args(["--input-type=module", "--eval", SCRIPT, "--"])
        .arg(judges)
        .arg(root.join("docs/events.schema.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let events = format!("[{}]", bodies.join(","));
    node.stdin
        .take()
        .unwrap()
        .write_all(events.as_bytes())
        .unwrap();
    let judged = node.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(judged.status.success(), "{said}");
}
