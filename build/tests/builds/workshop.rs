//! Whole builds: a repository behind a real git server, the real sandbox, and a double of origin over HTTP.
//!

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::double::Double;
use crate::forge::{ACCESS, Forge, git};
use helix_build::config::Config;
use helix_build::worker::Workshop;
use helix_routing::api::{
    BuildJob, BuildLimits, BuildOutcome, BuildSettings, BuildStep, BuildVariable, Source, Trust,
};
use helix_routing::id::Environment;
use helix_service::random;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;

/// Everything that a build needs.
pub(crate) struct World {
    pub(crate) forge: Forge,
    pub(crate) origin: Double,
    workshop: Workshop,
    pub(crate) folder: TempDir,
    pub(crate) bwrap: PathBuf,
}

impl World {
    pub(crate) async fn new() -> Option<Self> {
        Self::with("http = true").await
    }

    /// The same, with sources that may be reached so.
    async fn with(fetch: &str) -> Option<Self> {
        let bwrap = crate::place::bwrap()?;
        let folder = tempfile::Builder::new()
            .prefix("helix-build")
            .tempdir()
            .unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let origin = Double::start().await;
        let text = config(&folder.path().join("data"), &bwrap, &origin.url, fetch);
        let workshop = Workshop::open(toml::from_str::<Config>(&text).unwrap()).unwrap();
        Some(Self {
            forge: Forge::start().await,
            workshop: workshop.run_by(PathBuf::from(env!("CARGO_BIN_EXE_helix-build"))),
            origin,
            folder,
            bwrap,
        })
    }

    pub(crate) fn job(&self, commit: &str) -> BuildJob {
        BuildJob {
            id: random::hex16().parse().unwrap(),
            project: "shop".parse().unwrap(),
            environment: Environment::Production,
            source: Source {
                url: self.forge.url.clone(),
                reference: None,
                commit: commit.parse().unwrap(),
                authorization: Some(ACCESS.to_owned()),
            },
            settings: BuildSettings {
                root: None,
                framework: None,
                install: None,
                build: None,
                output: None,
                start: None,
            },
            trust: Trust::Default,
            env: [(
                "API_KEY".to_owned(),
                BuildVariable {
                    value: "hunter22-hunter22".to_owned(),
                    secret: true,
                },
            )]
            .into(),
            hosts: vec!["registry.npmjs.org".to_owned()],
            limits: BuildLimits {
                seconds: 300,
                ..BuildLimits::default()
            },
        }
    }

    /// Runs a job; what came of it, and the log.
    pub(crate) async fn build(&self, job: &BuildJob) -> (BuildOutcome, String) {
        let journal = Workshop::journal(job);
        let (_stop, stopped) = watch::channel(None);
        let outcome = self
            .workshop
            .build(job, &journal, &self.origin.origin(), stopped)
            .await;
        let lines = journal.waiting(usize::MAX);
        let log = lines
            .iter()
            .map(|line| format!("{:?}: {}\n", line.step, line.text))
            .collect();
        (outcome, log)
    }

    /// Commits files and builds them with a shell line.
    async fn line(
        &self,
        line: &str,
        files: &[(&str, &str)],
        change: impl FnOnce(&mut BuildJob),
    ) -> (BuildOutcome, String) {
        let commit = self.forge.commit("main", files);
        let mut job = self.job(&commit);
        job.settings.build = Some(line.to_owned());
        change(&mut job);
        self.build(&job).await
    }
}

/// The registry may be a mirror in a network of its own, so addresses are not looked at here.
fn config(data: &Path, bwrap: &Path, origin: &str, fetch: &str) -> String {
    format!(
        "origin = {origin:?}\ntoken_file = \"unused\"\ndata_dir = {data:?}\n[nats]\nurl = \"nats://127.0.0.1:1\"\nseed_file = \"unused\"\n\
         [fetch]\n{fetch}\n[egress]\nallow = [\"0.0.0.0/0\", \"::/0\"]\n[sandbox]\nbwrap = {bwrap:?}\n"
    )
}

pub(crate) fn failed(outcome: &BuildOutcome, step: BuildStep) -> String {
    match outcome {
        BuildOutcome::Failed { step: at, reason } if *at == step => reason.clone(),
        other => panic!("{other:?}"),
    }
}

macro_rules! world {
    () => {
        match World::new().await {
            Some(world) => world,
            None => return,
        }
    };
}

const PAGE: (&str, &str) = ("index.html", "<h1>hi</h1>");

#[tokio::test]
async fn a_plain_folder_is_fetched_by_its_commit_and_deployed_as_it_is() {
    let world = world!();
    let old = world.forge.commit("main", &[("public/index.html", "old")]);
    world.forge.commit("main", &[("public/index.html", "new")]);
    let (outcome, log) = world.build(&world.job(&old)).await;
    assert_eq!(
        world.origin.content(&outcome, "index.html").as_deref(),
        Some("old"),
        "{outcome:?} {log}"
    );
    // Nothing is left, and nothing of the access was written down.
    assert_eq!(
        fs::read_dir(world.folder.path().join("data/builds"))
            .unwrap()
            .count(),
        0
    );
    assert!(
        !log.contains("eC1hY2Nlc3M") && !log.contains("ghs_"),
        "{log}"
    );
}

#[tokio::test]
async fn a_build_sees_no_access_and_keeps_history_without_it() {
    let world = world!();
    let line = "cat .git/config; env; git log --oneline | wc -l; mkdir dist; git rev-parse HEAD > dist/index.html; find / -name '*.json' -newer /etc/passwd 2>/dev/null | head -3";
    let (outcome, log) = world.line(line, &[PAGE], |_| ()).await;
    assert!(
        matches!(outcome, BuildOutcome::Succeeded { .. }),
        "{outcome:?} {log}"
    );
    assert!(
        !log.contains("extraHeader")
            && !log.contains("eC1hY2Nlc3M")
            && !log.contains("ghs_hunter22"),
        "{log}"
    );
    assert!(log.contains("API_KEY=[hidden API_KEY]"), "{log}");
    let git_config = world.origin.content(&outcome, "index.html").unwrap();
    assert_eq!(git_config.trim().len(), 40);
}

#[tokio::test]
async fn secrets_are_hidden_in_the_log_and_fail_the_build_in_the_output() {
    let world = world!();
    let line = "printf %s \"$API_KEY\" | base64; printf 'x%s' \"$API_KEY\" | base64; printf %s \"$API_KEY\" | od -An -tx1 | tr -d ' \\n'; echo; \
                mkdir dist; printf 'page %s' \"$API_KEY\" | base64 > dist/app.js";
    let (outcome, log) = world.line(line, &[PAGE], |_| ()).await;
    let reason = failed(&outcome, BuildStep::Output);
    assert!(
        reason.contains("app.js") && reason.contains("API_KEY") && !reason.contains("hunter22"),
        "{reason}"
    );
    assert!(log.matches("[hidden API_KEY]").count() >= 3, "{log}");
    // A fork is given none, whatever the job says.
    let (outcome, log) = world
        .line("env; mkdir dist; echo x > dist/a", &[PAGE], |job| {
            job.trust = Trust::Fork
        })
        .await;
    assert!(
        matches!(outcome, BuildOutcome::Succeeded { .. }) && !log.contains("API_KEY"),
        "{outcome:?} {log}"
    );
}

#[tokio::test]
async fn hosts_that_are_not_allowed_are_named() {
    let world = world!();
    let line = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/3128; printf \"CONNECT evil.example:443 HTTP/1.1\\r\\n\\r\\n\" >&3; head -1 <&3'; exit 7";
    let (outcome, log) = world.line(line, &[PAGE], |_| ()).await;
    let reason = failed(&outcome, BuildStep::Build);
    assert!(
        reason.contains("code 7") && reason.contains("evil.example"),
        "{reason}"
    );
    assert!(log.contains("refused: evil.example"), "{log}");
}

#[tokio::test]
async fn outputs_that_cannot_be_deployed_are_named() {
    let world = world!();
    for (line, words) in [
        ("true", "left no output"),
        ("mkdir dist", "no files"),
        (
            "mkdir dist; mkfifo dist/pipe; echo x > dist/a",
            "\"pipe\" is a named pipe",
        ),
        (
            "mkdir dist; ln -s /etc/passwd dist/link",
            "\"link\" is a link out of the folder",
        ),
        ("ln -s /usr/share dist", "leads out of the project"),
        ("mkdir dist; truncate -s 3G dist/film", "film"),
        (
            "mkdir dist; cd dist; printf 'import os\\nfor i in range(100001): open(str(i), \"w\").close()' > ../t.py; seq 1 100001 | xargs touch",
            "more than 100000 files",
        ),
    ] {
        let (outcome, log) = world.line(line, &[PAGE], |_| ()).await;
        let reason = failed(&outcome, BuildStep::Output);
        assert!(reason.contains(words), "{line}: {reason} {log}");
    }
}

#[tokio::test]
async fn what_a_framework_worked_out_is_there_again_and_only_trusted_builds_keep_it() {
    let world = world!();
    let line = "cat .next/cache/x; mkdir -p .next/cache dist; echo worked out by $WHO > .next/cache/x; echo x > dist/index.html";
    let by = |who: &'static str, trust: Trust| {
        move |job: &mut BuildJob| {
            job.settings.framework = Some("next".to_owned());
            job.settings.output = Some("dist".to_owned());
            job.trust = trust;
            let (value, secret) = (who.to_owned(), false);
            job.env
                .insert("WHO".to_owned(), BuildVariable { value, secret });
        }
    };
    for (who, trust, before) in [
        ("a branch", Trust::Branch, None),
        ("main", Trust::Default, None),
        ("a fork", Trust::Fork, Some("main")),
        ("main again", Trust::Default, Some("main")),
        ("a branch again", Trust::Branch, Some("main again")),
    ] {
        let page = [("page", who)];
        let (outcome, log) = world.line(line, &page, by(who, trust)).await;
        assert!(
            matches!(outcome, BuildOutcome::Succeeded { .. }),
            "{outcome:?} {log}"
        );
        let found = log
            .lines()
            .find_map(|line| line.strip_prefix("Build: worked out by "));
        assert_eq!(found, before, "{who}: {log}");
    }
}

#[tokio::test]
async fn limits_of_a_job_end_its_build() {
    let world = world!();
    let (outcome, _) = world
        .line("sleep 100", &[PAGE], |job| job.limits.silence_seconds = 1)
        .await;
    assert!(failed(&outcome, BuildStep::Build).contains("printed nothing for 1 s"));
    let (outcome, _) = world
        .line("while true; do echo x; sleep 0.1; done", &[PAGE], |job| {
            job.limits.seconds = 3
        })
        .await;
    assert!(failed(&outcome, BuildStep::Build).contains("longer than a build may"));
}

#[tokio::test]
async fn limits_beyond_all_measure_are_none() {
    let world = world!();
    let all = |job: &mut BuildJob| {
        job.limits = BuildLimits {
            seconds: u64::MAX,
            silence_seconds: u64::MAX,
            memory_bytes: u64::MAX,
            processes: u64::MAX,
            disk_bytes: u64::MAX,
            log_bytes: u64::MAX,
        };
    };
    let (outcome, log) = world
        .line("mkdir dist; echo x > dist/a", &[PAGE], all)
        .await;
    assert!(
        matches!(outcome, BuildOutcome::Succeeded { .. }),
        "{outcome:?} {log}"
    );
}

#[tokio::test]
async fn a_stop_reaches_whatever_step_there_is() {
    let world = world!();
    let commit = world.forge.commit("main", &[PAGE]);
    let mut job = world.job(&commit);
    let word = format!("86410.{}", std::process::id());
    job.settings.build = Some(format!("echo ready; sleep {word}"));
    let journal = Workshop::journal(&job);
    let (stop, stopped) = watch::channel(None);
    let origin = world.origin.origin();
    let when_ready = async {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !journal
            .waiting(usize::MAX)
            .iter()
            .any(|line| line.text == "ready")
            && Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.send_replace(Some("a newer commit".to_owned()));
    };
    let (outcome, ()) = tokio::join!(
        world.workshop.build(&job, &journal, &origin, stopped),
        when_ready
    );
    assert!(failed(&outcome, BuildStep::Build).contains("a newer commit"));
    assert_eq!(crate::place::processes(&word), 0);
}

#[tokio::test]
async fn repositories_that_are_closed_gone_or_without_the_commit_are_told_apart() {
    let world = world!();
    let commit = world.forge.commit("main", &[PAGE]);
    let mut job = world.job(&commit);
    job.source.authorization = Some("Basic d3Jvbmc6d3Jvbmc=".to_owned());
    assert!(
        failed(&world.build(&job).await.0, BuildStep::Fetch).contains("gone, or cannot be read")
    );
    let mut job = world.job(&commit);
    job.source.url = world.forge.url.replace("site.git", "other.git");
    assert!(
        failed(&world.build(&job).await.0, BuildStep::Fetch).contains("gone, or cannot be read")
    );
    let missing = "0123456789012345678901234567890123456789";
    assert!(
        failed(&world.build(&world.job(missing)).await.0, BuildStep::Fetch)
            .contains("is not in the repository")
    );
    for (url, words) in [
        ("ext::sh -c touch% /tmp/pwned", "not one"),
        ("file:///etc", "not fetched by file"),
        ("https://user:secret@example.com/a", "user or password"),
    ] {
        let mut job = world.job(&commit);
        job.source.url = url.to_owned();
        let reason = failed(&world.build(&job).await.0, BuildStep::Fetch);
        assert!(reason.contains(words), "{url}: {reason}");
    }
    let mut job = world.job(&commit);
    job.source.reference = Some("--upload-pack=touch /tmp/pwned".to_owned());
    assert!(failed(&world.build(&job).await.0, BuildStep::Fetch).contains("no reference"));
}

/// The server's half of a fetch runs as whoever builds, too, and the repository is somebody else's.
#[tokio::test]
async fn a_repository_of_this_machine_is_fetched_where_that_is_allowed() {
    let Some(world) = World::with("file = true").await else {
        return;
    };
    let commit = world
        .forge
        .commit("main", &[("public/index.html", "from here")]);
    fs::set_permissions(
        world.forge.bare().parent().unwrap(),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let mut job = world.job(&commit);
    job.source.url = format!("file://{}", world.forge.bare().display());
    job.source.authorization = None;
    let (outcome, log) = world.build(&job).await;
    let page = world.origin.content(&outcome, "index.html");
    assert_eq!(page.as_deref(), Some("from here"), "{outcome:?} {log}");
}

#[tokio::test]
async fn where_commits_cannot_be_asked_for_the_reference_leads_to_them() {
    let world = world!();
    // Without protocol 2 a commit that no reference names is not served.
    git(&world.forge.bare(), &["config", "protocol.version", "0"]);
    let first = world
        .forge
        .commit("refs/pull/42/head", &[("public/index.html", "first")]);
    world
        .forge
        .commit("refs/pull/42/head", &[("public/index.html", "second")]);
    let mut job = world.job(&first);
    job.source.reference = Some("refs/pull/42/head".to_owned());
    let (outcome, log) = world.build(&job).await;
    assert_eq!(
        world.origin.content(&outcome, "index.html").as_deref(),
        Some("first"),
        "{log}"
    );
    let mut job = world.job("0123456789012345678901234567890123456789");
    job.source.reference = Some("refs/pull/42/head".to_owned());
    assert!(
        failed(&world.build(&job).await.0, BuildStep::Fetch).contains("is not in the repository")
    );
}

#[tokio::test]
async fn hooks_submodules_and_large_files_of_a_repository_do_nothing() {
    let world = world!();
    let work = world.forge.work();
    fs::write(
        work.join(".gitmodules"),
        "[submodule \"x\"]\n\tpath = x\n\turl = ext::touch /tmp/pwned\n",
    )
    .unwrap();
    fs::write(
        work.join(".gitattributes"),
        "*.mp4 filter=lfs diff=lfs merge=lfs\n",
    )
    .unwrap();
    fs::create_dir_all(work.join("public")).unwrap();
    fs::write(
        work.join("public/film.mp4"),
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    )
    .unwrap();
    symlink("/etc/passwd", work.join("package.json")).unwrap();
    let commit = world.forge.commit_all("main");
    let (outcome, log) = world.build(&world.job(&commit)).await;
    let reason = failed(&outcome, BuildStep::Output);
    assert!(
        reason.contains("film.mp4") && reason.contains("LFS"),
        "{reason}"
    );
    assert!(
        log.contains("submodules are not fetched") && log.contains("large files (git LFS)"),
        "{log}"
    );
}

#[tokio::test]
async fn a_repository_that_is_too_large_is_given_up() {
    let world = world!();
    let noise: Vec<u8> = std::iter::repeat_with(|| random::secret().into_bytes())
        .take(400_000)
        .flatten()
        .collect();
    fs::write(world.forge.work().join("big"), noise).unwrap();
    let commit = world.forge.commit_all("main");
    let mut job = world.job(&commit);
    job.limits.disk_bytes = 1 << 20;
    job.settings.build = Some("sleep 30".to_owned());
    let (outcome, _) = world.build(&job).await;
    match outcome {
        BuildOutcome::Failed {
            step: BuildStep::Fetch,
            reason,
        } => assert!(reason.contains("1048576 bytes"), "{reason}"),
        BuildOutcome::Failed {
            step: BuildStep::Build,
            reason,
        } => assert!(reason.contains("on disk"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
