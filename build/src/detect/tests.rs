//! Projects, and how they are built.

use super::files::Written;
use super::*;

fn planned(files: &[(&str, &str)], settings: &BuildSettings) -> PlanView {
    plan(&Written::new(files), settings).unwrap().view()
}

fn settings() -> BuildSettings {
    BuildSettings {
        root: None,
        framework: None,
        install: None,
        build: None,
        output: None,
        start: None,
    }
}

#[test]
fn a_vite_project_is_installed_by_its_lockfile_and_built_by_its_script() {
    let files = [
        (
            "package.json",
            r#"{"scripts": {"build": "tsc && vite build"}, "devDependencies": {"vite": "7", "react": "19"}, "engines": {"node": "22"}}"#,
        ),
        ("package-lock.json", "{}"),
    ];
    let view = planned(&files, &settings());
    assert_eq!(view.framework.as_deref(), Some("vite"));
    assert_eq!(view.install.as_deref(), Some("npm ci"));
    assert_eq!(view.build.as_deref(), Some("npm run build"));
    assert_eq!(view.outputs, [BUILD_OUTPUT, "dist"]);
    assert_eq!(view.node, Some(22));
    let told = BuildSettings {
        install: Some(String::new()),
        build: Some("make".to_owned()),
        output: Some("/out/".to_owned()),
        ..settings()
    };
    let view = planned(&files, &told);
    assert_eq!((view.install, view.build.as_deref()), (None, Some("make")));
    assert_eq!(view.outputs, ["out"]);
}

#[test]
fn what_is_built_on_vite_is_not_taken_for_vite() {
    for (packages, slug) in [
        ("astro vite", "astro"),
        ("@sveltejs/kit vite svelte", "svelte-kit"),
        ("svelte vite", "vite"),
        ("vue vite", "vite"),
        ("solid-js vite", "solid"),
        ("@solidjs/start solid-js", "solid-start"),
        ("@react-router/dev vite", "react-router"),
        ("vitepress vue", "vitepress"),
        ("@angular/cli", "angular"),
        ("@analogjs/platform @angular/cli vite", "analog"),
        ("nuxt vue", "nuxt"),
        ("next react", "next"),
        ("blitz next", "blitz"),
        ("@docusaurus/core", "docusaurus"),
        ("storybook vite react", "vite"),
        ("express vite", "vite"),
    ] {
        let list: Vec<String> = packages
            .split(' ')
            .map(|package| format!("\"{package}\": \"1\""))
            .collect();
        let text = format!("{{\"dependencies\": {{{}}}}}", list.join(","));
        let view = planned(&[("package.json", &text)], &settings());
        assert_eq!(view.framework.as_deref(), Some(slug), "{packages}");
    }
}

#[test]
fn generators_without_packages_are_known_by_their_files() {
    for (file, text, slug, build) in [
        ("hugo.toml", "", "hugo", "hugo --gc"),
        ("config.toml", "baseURL = \"/\"", "hugo", "hugo --gc"),
        ("config.toml", "base_url = \"/\"", "zola", "zola build"),
        ("book.toml", "", "mdbook", "mdbook build"),
        (
            "_config.yml",
            "title: x",
            "jekyll",
            "bundle exec jekyll build",
        ),
    ] {
        let view = planned(&[(file, text)], &settings());
        assert_eq!(
            (view.framework.as_deref(), view.build.as_deref()),
            (Some(slug), Some(build))
        );
        assert_eq!(view.node, None, "{file}");
    }
}

#[test]
fn a_folder_without_a_build_is_deployed_as_it_is() {
    let view = planned(&[("index.html", "")], &settings());
    assert_eq!((view.install, view.build), (None, None));
    assert_eq!(view.outputs, ["public", ""]);
}

#[test]
fn members_of_a_monorepo_are_installed_at_its_root() {
    let web =
        r#"{"name": "web", "scripts": {"build": "vite build"}, "devDependencies": {"vite": "7"}}"#;
    let pnpm = [
        ("pnpm-workspace.yaml", "packages:\n- apps/*\n"),
        ("pnpm-lock.yaml", "lockfileVersion: '9.0'"),
        ("package.json", "{}"),
        ("apps/web/package.json", web),
    ];
    let at_web = BuildSettings {
        root: Some("./apps/web/".to_owned()),
        ..settings()
    };
    let view = planned(&pnpm, &at_web);
    assert_eq!(
        (view.root.as_str(), view.install_root.as_str()),
        ("apps/web", "")
    );
    assert_eq!(
        view.install.as_deref(),
        Some("pnpm install --frozen-lockfile")
    );
    assert_eq!(view.build.as_deref(), Some("pnpm run build"));
    let view = planned(&pnpm, &settings());
    assert!(
        view.notes.iter().any(|note| note.contains("apps/web")),
        "{:?}",
        view.notes
    );

    let turbo = r#"{"workspaces": ["apps/*"], "devDependencies": {"turbo": "2"}}"#;
    let files = [
        ("package.json", turbo),
        ("turbo.json", "{}"),
        ("apps/web/package.json", web),
    ];
    let view = planned(&files, &at_web);
    assert_eq!(
        view.build.as_deref(),
        Some("cd ../../ && turbo run build --filter=./apps/web")
    );
    let nx = r#"{"workspaces": ["apps/*"], "devDependencies": {"nx": "20"}}"#;
    let files = [
        ("package.json", nx),
        ("nx.json", "{}"),
        ("apps/web/package.json", web),
    ];
    let view = planned(&files, &at_web);
    assert_eq!(view.build.as_deref(), Some("cd ../../ && nx run web:build"));
}

#[test]
fn settings_that_name_nothing_and_broken_manifests_are_refused() {
    for root in ["../x", "/etc", "a/../../b", "a\\b"] {
        let told = BuildSettings {
            root: Some(root.to_owned()),
            ..settings()
        };
        let refused = plan(&Written::default(), &told);
        assert!(matches!(refused, Err(DetectError::Root { .. })), "{root}");
    }
    let told = BuildSettings {
        framework: Some("viet".to_owned()),
        ..settings()
    };
    assert!(matches!(
        plan(&Written::default(), &told),
        Err(DetectError::Framework { .. })
    ));
    let broken = plan(
        &Written::new(&[("package.json", "{\n \"a\": }")]),
        &settings(),
    );
    assert!(broken.unwrap_err().to_string().contains("line 2"));
}
