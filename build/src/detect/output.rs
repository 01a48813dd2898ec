//! Output folders that projects name in their own configuration.
//!
//! Pure. Configuration that is a program is not run: a plain `outDir: "…"` in it is found, anything cleverer is left to settings.

use serde_json::Value;

use super::files::{Files, join};

/// Where the project says that its output goes, from its folder.
pub(super) fn said(files: &impl Files, root: &str, framework: &str) -> Option<String> {
    let read = |name: &str| files.read(&join(root, name));
    let any = |names: &[&str]| names.iter().find_map(|name| read(name));
    let folder = match framework {
        "hugo" => toml_text(
            &any(&["hugo.toml", "config.toml", "config/_default/hugo.toml"])?,
            "publishDir",
        ),
        "zola" => toml_text(&any(&["zola.toml", "config.toml"])?, "output_dir"),
        "jekyll" => yaml_text(&any(&["_config.yml", "_config.yaml"])?, "destination"),
        "mdbook" => mdbook(&read("book.toml")?),
        "angular" => angular(&read("angular.json")?),
        "vite" | "vue-cli" | "astro" | "next" | "eleventy" => {
            let text = any(CONFIGS.iter().find(|(slug, _)| *slug == framework)?.1)?;
            script_text(&text, KEYS)
        }
        _ => None,
    }?;
    tidy(&folder)
}

/// Configuration that is a program, by framework.
const CONFIGS: &[(&str, &[&str])] = &[
    (
        "vite",
        &[
            "vite.config.js",
            "vite.config.ts",
            "vite.config.mjs",
            "vite.config.mts",
        ],
    ),
    ("vue-cli", &["vue.config.js"]),
    (
        "astro",
        &["astro.config.mjs", "astro.config.ts", "astro.config.js"],
    ),
    (
        "next",
        &["next.config.js", "next.config.mjs", "next.config.ts"],
    ),
    (
        "eleventy",
        &[".eleventy.js", "eleventy.config.js", "eleventy.config.mjs"],
    ),
];

/// What names the output folder in them.
const KEYS: &[&str] = &["outDir", "outputDir", "distDir"];

/// A folder below the project's, or nothing.
fn tidy(folder: &str) -> Option<String> {
    let folder = folder.trim_start_matches("./").trim_end_matches('/');
    let safe = !folder.is_empty()
        && !folder.starts_with('/')
        && !folder.split('/').any(|part| part == "..");
    safe.then(|| folder.to_owned())
}

fn toml_text(text: &str, key: &str) -> Option<String> {
    let table: toml::Table = toml::from_str(text).ok()?;
    table.get(key)?.as_str().map(str::to_owned)
}

fn mdbook(text: &str) -> Option<String> {
    let table: toml::Table = toml::from_str(text).ok()?;
    table
        .get("build")?
        .get("build-dir")?
        .as_str()
        .map(str::to_owned)
}

fn yaml_text(text: &str, key: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(
        line.split(" #")
            .next()?
            .trim()
            .trim_matches(['"', '\''])
            .to_owned(),
    )
}

/// The first project's output. What is new in 17 leaves the files for browsers in `browser`.
fn angular(text: &str) -> Option<String> {
    let config: Value = serde_json::from_str(text).ok()?;
    let (name, project) = config["projects"].as_object()?.iter().next()?;
    let build = project["architect"]
        .get("build")
        .or_else(|| project["targets"].get("build"))?;
    let path = &build["options"]["outputPath"];
    let base = path
        .as_str()
        .or_else(|| path["base"].as_str())
        .map_or_else(|| format!("dist/{name}"), str::to_owned);
    let splits = build["builder"]
        .as_str()
        .is_some_and(|builder| builder.ends_with(":application"));
    Some(if splits {
        format!("{base}/browser")
    } else {
        base
    })
}

/// The text behind `key:` where it stands in quotes.
fn script_text(text: &str, keys: &[&str]) -> Option<String> {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//") && !line.starts_with('*'))
        .find_map(|line| keys.iter().find_map(|key| quoted_behind(line, key)))
}

fn quoted_behind(line: &str, key: &str) -> Option<String> {
    let at = line.find(key)?;
    let before = line[..at].chars().next_back();
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let rest = line[at + key.len()..]
        .trim_start_matches(['"', '\''])
        .trim_start();
    let rest = rest.strip_prefix(':')?.trim_start();
    let quote = rest
        .chars()
        .next()
        .filter(|c| matches!(c, '"' | '\'' | '`'))?;
    let (value, _) = rest[1..].split_once(quote)?;
    (!value.contains("${")).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::files::Written;

    #[test]
    fn projects_say_where_their_output_goes() {
        for (framework, file, text, expected) in [
            ("hugo", "hugo.toml", "publishDir = \"docs\"\n", Some("docs")),
            ("hugo", "hugo.toml", "publishDir = \"../up\"\n", None),
            (
                "jekyll",
                "_config.yml",
                "title: x\ndestination: ./www # here\n",
                Some("www"),
            ),
            (
                "mdbook",
                "book.toml",
                "[build]\nbuild-dir = \"out\"\n",
                Some("out"),
            ),
            (
                "vite",
                "vite.config.ts",
                "  // outDir: 'no'\n  build: { outDir: 'web/' },\n",
                Some("web"),
            ),
            (
                "vite",
                "vite.config.ts",
                "build: { outDir: `${x}/y` }",
                None,
            ),
            ("vite", "vite.config.ts", "build: { outDir: '/abs' }", None),
            (
                "angular",
                "angular.json",
                r#"{"projects": {"shop": {"architect": {"build": {"builder": "@angular/build:application", "options": {}}}}}}"#,
                Some("dist/shop/browser"),
            ),
            ("angular", "angular.json", "{", None),
        ] {
            let files = Written::new(&[(file, text)]);
            assert_eq!(said(&files, "", framework).as_deref(), expected, "{text}");
        }
    }
}
