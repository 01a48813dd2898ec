//! What providers are sent, against the types that are generated of their published schemas: npm `@octokit/openapi-types` (GitHub's
//! OpenAPI), `@coderabbitai/bitbucket` (Bitbucket's) and `@gitbeaker/core` (GitLab has none of the kind; its client's own types).
//!
//! TypeScript is the judge: a path, a method, a field or a value that is not in the schema does not compile.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A request: method, path below the API's base, and body.
pub(crate) type Asked = (String, String, Value);

const PREAMBLE: &str = "\
import type { paths as github } from '@octokit/openapi-types';
import type { paths as bitbucket } from '@coderabbitai/bitbucket/cloud/openapi';
import type { CommitablePipelineStatus, EditPipelineStatusOptions } from '@gitbeaker/core';
type Body<T> = T extends { requestBody?: { content: { 'application/json': infer B } } } ? B : never;
interface gitlab {
  '/projects/{id}/statuses/{sha}': { post: { requestBody: { content: { 'application/json': { state: CommitablePipelineStatus } & Snake<EditPipelineStatusOptions> } } } };
  '/projects/{id}/merge_requests/{iid}/notes': { get: unknown; post: { requestBody: { content: { 'application/json': { body: string } } } } };
}
type SnakeKey<S extends string> = S extends `${infer H}${infer R}` ? `${H extends Lowercase<H> ? H : `_${Lowercase<H>}`}${SnakeKey<R>}` : S;
type Snake<T> = { [K in keyof T as K extends string ? SnakeKey<K> : never]: T[K] };
";

/// Where requests go, as the schemas write it.
const PLACES: &[(&str, &str)] = &[
    ("github", "/repos/{owner}/{repo}/statuses/{sha}"),
    (
        "github",
        "/repos/{owner}/{repo}/issues/{issue_number}/comments",
    ),
    (
        "github",
        "/repos/{owner}/{repo}/issues/comments/{comment_id}",
    ),
    ("gitlab", "/projects/{id}/statuses/{sha}"),
    ("gitlab", "/projects/{id}/merge_requests/{iid}/notes"),
    (
        "bitbucket",
        "/repositories/{workspace}/{repo_slug}/commit/{commit}/statuses/build",
    ),
    (
        "bitbucket",
        "/repositories/{workspace}/{repo_slug}/commit/{commit}",
    ),
    (
        "bitbucket",
        "/repositories/{workspace}/{repo_slug}/pullrequests/{pull_request_id}/comments",
    ),
];

/// Panics with what the judge says of the requests; passes over it, and says so, where it is not installed.
pub(crate) fn judge(provider: &str, asked: &[Asked]) {
    let Some(judges) = judges() else { return };
    let said = compiled(&judges, &program(provider, asked));
    assert_eq!(said, "", "{provider}");
    // A judge that lets everything pass is none.
    let (method, path, _) = asked
        .iter()
        .find(|(method, ..)| method != "GET")
        .expect("something was sent");
    let wrong = serde_json::json!({ "state": "well", "body": 1, "content": 1 });
    let forged = [(method.clone(), path.clone(), wrong)];
    assert_ne!(compiled(&judges, &program(provider, &forged)), "");
}

fn judges() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/judges");
    let modules = folder.join("node_modules");
    let there = [
        "typescript",
        "@octokit/openapi-types",
        "@coderabbitai/bitbucket",
        "@gitbeaker/core",
    ];
    if there.iter().all(|name| modules.join(name).is_dir()) {
        return fs::canonicalize(folder).ok();
    }
    let missing =
        format!("{there:?} are not below .tools/judges, run `deploy/setup/tools.py --tests`");
    let _ = writeln!(io::stderr(), "skipped: {missing}");
    None
}

/// One assignment for each body, and one name for each that has none.
fn program(provider: &str, asked: &[Asked]) -> String {
    let mut text = PREAMBLE.to_owned();
    for (at, (method, path, body)) in asked.iter().enumerate() {
        let place = place(provider, path);
        let kind = format!("{provider}['{place}']['{}']", method.to_lowercase());
        if method == "GET" {
            let _ = writeln!(text, "export type T{at} = {kind};");
        } else {
            let body = said_of(provider, place, body);
            let _ = writeln!(text, "export const v{at}: Body<{kind}> = {body};");
        }
    }
    text
}

/// Bitbucket's schema asks for the name of each kind, which its own examples leave out.
fn said_of(provider: &str, place: &str, body: &Value) -> Value {
    let mut body = body.clone();
    if provider == "bitbucket" {
        let kind = if place.ends_with("/build") {
            "commitstatus"
        } else {
            "pullrequest_comment"
        };
        body["type"] = Value::from(kind);
    }
    body
}

fn place(provider: &str, path: &str) -> &'static str {
    let fits = |place: &str| {
        let (mut theirs, mut ours) = (place.split('/'), path.split('/'));
        theirs
            .by_ref()
            .zip(ours.by_ref())
            .all(|(theirs, ours)| theirs.starts_with('{') || theirs == ours)
            && place.split('/').count() == path.split('/').count()
    };
    let found = PLACES
        .iter()
        .find(|(of, place)| *of == provider && fits(place));
    assert!(found.is_some(), "{provider} was asked for {path}");
    found.unwrap().1
}

/// What the compiler says; nothing if all is well.
fn compiled(judges: &Path, program: &str) -> String {
    // Beside the packages, where they are looked for.
    let folder = tempfile::tempdir_in(judges).unwrap();
    let file = folder.path().join("asked.ts");
    fs::write(&file, program).unwrap();
    let output = Command::new("node")
        .arg(judges.join("node_modules/typescript/bin/tsc"))
        .args(["--noEmit", "--strict", "--skipLibCheck"])
        .args(["--target", "es2022", "--module", "nodenext"])
        .arg(&file)
        .output()
        .unwrap();
    if output.status.success() {
        return String::new();
    }
    format!("{}\n{program}", String::from_utf8_lossy(&output.stdout))
}
