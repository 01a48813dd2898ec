//! Real projects of real frameworks and package managers, from the public npm registry: `make test-frameworks`.
//!
//! Each is as small as its framework lets it be. They take minutes, and so are not part of `make test`.

use helix_routing::api::BuildOutcome;

use crate::workshop::World;

/// A project: its name, its files, its root directory, and a file of its output.
struct Project {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    root: Option<&'static str>,
    output: &'static str,
}

/// The variable that names a part of the names of those that are built.
const ONLY: &str = "HELIX_TEST_FRAMEWORKS";

const PROJECTS: &[Project] = &[
    Project {
        name: "vite with pnpm",
        files: &[
            (
                "package.json",
                r#"{"type": "module", "packageManager": "pnpm@10.20.0", "scripts": {"build": "vite build"}, "devDependencies": {"vite": "7.1.12"}}"#,
            ),
            (
                "index.html",
                "<script type=\"module\" src=\"/main.js\"></script>",
            ),
            ("main.js", "document.title = 'x';"),
        ],
        root: None,
        output: "index.html",
    },
    Project {
        name: "vite with bun, and vue",
        files: &[
            (
                "package.json",
                r#"{"type": "module", "packageManager": "bun@1.3.2", "scripts": {"build": "vite build"}, "dependencies": {"vue": "3.5.22"}, "devDependencies": {"vite": "7.1.12", "@vitejs/plugin-vue": "6.0.1"}}"#,
            ),
            (
                "vite.config.js",
                "import vue from '@vitejs/plugin-vue'; export default { plugins: [vue()], build: { outDir: 'web' } };",
            ),
            (
                "index.html",
                "<div id=\"app\"></div><script type=\"module\" src=\"/main.js\"></script>",
            ),
            (
                "main.js",
                "import { createApp } from 'vue'; import App from './App.vue'; createApp(App).mount('#app');",
            ),
            ("App.vue", "<template><h1>hi</h1></template>"),
        ],
        root: None,
        output: "index.html",
    },
    Project {
        name: "vite with deno",
        files: &[
            (
                "package.json",
                r#"{"type": "module", "packageManager": "deno@2.5.6", "scripts": {"build": "vite build"}, "devDependencies": {"vite": "7.1.12"}}"#,
            ),
            ("index.html", "<h1>hi</h1>"),
        ],
        root: None,
        output: "index.html",
    },
    Project {
        name: "vite with yarn of before",
        files: &[
            (
                "package.json",
                r#"{"type": "module", "packageManager": "yarn@1.22.22", "scripts": {"build": "vite build"}, "devDependencies": {"vite": "7.1.12"}}"#,
            ),
            ("index.html", "<h1>hi</h1>"),
        ],
        root: None,
        output: "index.html",
    },
    Project {
        name: "vite with yarn",
        files: &[
            (
                "package.json",
                r#"{"type": "module", "packageManager": "yarn@4.10.3", "scripts": {"build": "vite build"}, "devDependencies": {"vite": "7.1.12"}}"#,
            ),
            (
                ".yarnrc.yml",
                "npmRegistryServer: https://registry.npmjs.org\nnodeLinker: node-modules\n",
            ),
            ("index.html", "<h1>hi</h1>"),
        ],
        root: None,
        output: "index.html",
    },
    Project {
        name: "a pnpm monorepo with turbo",
        files: &[
            (
                "package.json",
                r#"{"private": true, "packageManager": "pnpm@10.20.0", "devDependencies": {"turbo": "2.5.8"}}"#,
            ),
            (
                "pnpm-workspace.yaml",
                "packages:\n  - apps/*\n  - packages/*\n",
            ),
            (
                "turbo.json",
                r#"{"tasks": {"build": {"dependsOn": ["^build"], "outputs": ["dist/**"]}}}"#,
            ),
            (
                "packages/ui/package.json",
                r#"{"name": "ui", "version": "1.0.0", "type": "module", "main": "dist/i.js", "scripts": {"build": "mkdir -p dist && echo 'export const t = 1' > dist/i.js"}}"#,
            ),
            (
                "apps/web/package.json",
                r#"{"name": "web", "type": "module", "scripts": {"build": "vite build"}, "dependencies": {"ui": "workspace:*"}, "devDependencies": {"vite": "7.1.12"}}"#,
            ),
            (
                "apps/web/index.html",
                "<script type=\"module\" src=\"/main.js\"></script>",
            ),
            (
                "apps/web/main.js",
                "import { t } from 'ui'; document.title = t;",
            ),
        ],
        root: Some("apps/web"),
        output: "index.html",
    },
    Project {
        name: "vite with react",
        files: &[
            (
                "package.json",
                r#"{"type": "module", "scripts": {"build": "vite build"}, "dependencies": {"react": "19.2.0", "react-dom": "19.2.0"}, "devDependencies": {"vite": "7.1.12", "@vitejs/plugin-react": "5.1.0"}}"#,
            ),
            (
                "vite.config.js",
                "import react from '@vitejs/plugin-react'; export default { plugins: [react()] };",
            ),
            (
                "index.html",
                "<div id=\"app\"></div><script type=\"module\" src=\"/main.jsx\"></script>",
            ),
            (
                "main.jsx",
                "import { createRoot } from 'react-dom/client'; createRoot(document.getElementById('app')).render(<h1>hi</h1>);",
            ),
        ],
        root: None,
        output: "index.html",
    },
    Project {
        name: "vite with svelte",
        files: &[
            (
                "package.json",
                r#"{"type": "module", "scripts": {"build": "vite build"}, "devDependencies": {"vite": "7.1.12", "@sveltejs/vite-plugin-svelte": "6.2.1", "svelte": "5.43.3"}}"#,
            ),
            (
                "vite.config.js",
                "import { svelte } from '@sveltejs/vite-plugin-svelte'; export default { plugins: [svelte()] };",
            ),
            (
                "index.html",
                "<div id=\"app\"></div><script type=\"module\" src=\"/main.js\"></script>",
            ),
            (
                "main.js",
                "import { mount } from 'svelte'; import App from './App.svelte'; mount(App, { target: document.getElementById('app') });",
            ),
            ("App.svelte", "<h1>hi</h1>"),
        ],
        root: None,
        output: "index.html",
    },
    Project {
        name: "docusaurus",
        files: &[
            (
                "package.json",
                r#"{"private": true, "scripts": {"build": "docusaurus build"}, "dependencies": {"@docusaurus/core": "3.10.2", "@docusaurus/preset-classic": "3.10.2", "@mdx-js/react": "3.1.1", "react": "19.2.0", "react-dom": "19.2.0"}, "engines": {"node": ">=20"}}"#,
            ),
            (
                "docusaurus.config.js",
                "export default { title: 'x', url: 'https://example.com', baseUrl: '/', presets: [['classic', { docs: { routeBasePath: '/' }, blog: false }]] };",
            ),
            ("docs/index.md", "---\nslug: /\n---\n\n# hi\n"),
        ],
        root: None,
        output: "index.html",
    },
    Project {
        name: "hugo",
        files: &[
            (
                "hugo.toml",
                "baseURL = 'https://example.com/'\ntitle = 'x'\n",
            ),
            (".hugo-version", "0.152.2\n"),
            ("layouts/home.html", "<h1>{{ .Title }}</h1>"),
            ("content/_index.md", "+++\ntitle = 'hi'\n+++\n"),
        ],
        root: None,
        output: "index.html",
    },
    Project {
        name: "eleventy",
        files: &[
            (
                "package.json",
                r#"{"devDependencies": {"@11ty/eleventy": "3.1.2"}}"#,
            ),
            ("index.md", "# hi"),
        ],
        root: None,
        output: "index.html",
    },
    Project {
        name: "astro",
        files: &[
            (
                "package.json",
                r#"{"type": "module", "scripts": {"build": "astro build"}, "dependencies": {"astro": "5.15.3"}, "engines": {"node": ">=20"}}"#,
            ),
            ("src/pages/index.astro", "<h1>hi</h1>"),
        ],
        root: None,
        output: "index.html",
    },
    Project {
        name: "next as a static export",
        files: &[
            (
                "package.json",
                r#"{"scripts": {"build": "next build"}, "dependencies": {"next": "15.5.6", "react": "19.2.0", "react-dom": "19.2.0"}}"#,
            ),
            ("next.config.mjs", "export default { output: 'export' };"),
            (
                "pages/index.js",
                "export default function Page() { return <h1>hi</h1>; }",
            ),
        ],
        root: None,
        output: "index.html",
    },
    Project {
        name: "sveltekit for another platform's output",
        files: &[
            (
                "package.json",
                r#"{"type": "module", "scripts": {"build": "vite build"}, "engines": {"node": "22"}, "devDependencies": {"@sveltejs/adapter-vercel": "6.1.1", "@sveltejs/kit": "2.48.4", "@sveltejs/vite-plugin-svelte": "6.2.1", "svelte": "5.43.3", "vite": "7.1.12"}}"#,
            ),
            (
                "svelte.config.js",
                "import adapter from '@sveltejs/adapter-vercel'; export default { kit: { adapter: adapter({ runtime: 'nodejs22.x' }) } };",
            ),
            (
                "vite.config.js",
                "import { sveltekit } from '@sveltejs/kit/vite'; export default { plugins: [sveltekit()] };",
            ),
            (
                "src/app.html",
                "<html><head>%sveltekit.head%</head><body>%sveltekit.body%</body></html>",
            ),
            ("src/routes/+page.svelte", "<h1>hi</h1>"),
            ("src/routes/+page.js", "export const prerender = true;"),
        ],
        root: None,
        output: ".vercel/output/config.json",
    },
];

#[tokio::test]
#[ignore = "fetches much from the npm registry: make test-frameworks"]
async fn projects_of_real_frameworks_are_built() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut wrong = Vec::new();
    let only = std::env::var(ONLY).unwrap_or_default();
    for project in PROJECTS
        .iter()
        .filter(|project| project.name.contains(&only))
    {
        world.forge.clear();
        let commit = world.forge.commit("main", project.files);
        let mut job = world.job(&commit);
        job.settings.root = project.root.map(str::to_owned);
        job.hosts
            .extend(["registry.yarnpkg.com", "jsr.io", "npm.jsr.io"].map(str::to_owned));
        let start = tokio::time::Instant::now();
        let (outcome, log) = world.build(&job).await;
        eprintln!("{}: {:.1} s", project.name, start.elapsed().as_secs_f64());
        let built = match &outcome {
            BuildOutcome::Succeeded { files, .. } => {
                files.iter().any(|file| file.path == project.output)
            }
            BuildOutcome::Failed { .. } => false,
        };
        if !built {
            wrong.push(format!("{}: {outcome:?}\n{log}", project.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
