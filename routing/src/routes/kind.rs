//! What a file's path tells about how long its bytes may be kept.
//!
//! Pure. A name that holds a hash of its content never means other bytes, so it may be kept for ever. Names
//! are guessed at, and a wrong guess is kept for a year: so only what build tools make is believed.

/// Folders in which a framework puts nothing but files with hashed names.
const HASHED_FOLDERS: &[&str] = &["_next/static/", "_astro/", "_app/immutable/"];

/// Whether the bytes under `path`, decoded and without the slash at its start, never change.
#[must_use]
pub fn is_immutable(path: &str) -> bool {
    if HASHED_FOLDERS.iter().any(|folder| path.starts_with(folder)) {
        return !is_page(path);
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some((stem, _)) = name.rsplit_once('.').filter(|_| !is_page(name)) else {
        return false;
    };
    let mut parts = stem.split(['.', '-', '_']).skip(1);
    parts.any(is_hexadecimal_hash)
        || (folder
            .split('/')
            .any(|part| matches!(part, "assets" | "_nuxt"))
            && ends_with_hash(stem))
}

/// Whether `path` asks for a file that belongs to a page, rather than for a page.
#[must_use]
pub fn is_asset(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.contains('.') && !is_page(name)
}

/// Whether `path` is that of a page.
#[must_use]
pub fn is_page(path: &str) -> bool {
    [".html", ".htm", ".xhtml"].iter().any(|end| {
        path.len()
            .checked_sub(end.len())
            .and_then(|at| path.get(at..))
            .is_some_and(|tail| tail.eq_ignore_ascii_case(end))
    })
}

/// At least 8 hexadecimal digits, with figures and letters among them: neither a date nor a word.
fn is_hexadecimal_hash(part: &str) -> bool {
    part.len() >= 8
        && part
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && part.bytes().filter(u8::is_ascii_digit).count() >= 2
        && part.bytes().filter(u8::is_ascii_alphabetic).count() >= 2
}

/// `name-DiwrgTda`: 8 characters in base 64, as Rollup makes them, in which a capital stands behind another
/// character than a word has it.
fn ends_with_hash(stem: &str) -> bool {
    let Some(at) = stem.len().checked_sub(8).filter(|at| *at > 1) else {
        return false;
    };
    let (Some(name), Some(hash)) = (stem.get(..at), stem.get(at..)) else {
        return false;
    };
    let inner_capital = hash.bytes().skip(1).any(|byte| byte.is_ascii_uppercase());
    let other = hash
        .bytes()
        .any(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    name.ends_with(['-', '.'])
        && hash
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && inner_capital
        && other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashed_names_are_told_from_others() {
        for path in [
            "_next/static/chunks/app/page-1a2b3c4d.js",
            "_next/static/Xy/_buildManifest.js",
            "_astro/x.js",
            "_app/immutable/entry/start.js",
            "assets/index-DiwrgTda.js",
            "assets/index-B_x-9QzK.css",
            "docs/assets/logo-C0nd_itX.svg",
            "main.3f2a9c1b.js",
            "static/js/main.3f2a9c1b0d.chunk.js",
            "a-0123456789abcdef0123.js.map",
        ] {
            assert!(is_immutable(path), "{path}");
        }
        for path in [
            "",
            "index.html",
            "assets/index-DiwrgTda.html",
            "assets/team-Portrait.png",
            "assets/photo-vacation.jpg",
            "assets/DiwrgTda.js",
            "report-20231231.pdf",
            "jquery-3.7.1.min.js",
            "img-deadbeef.png",
            "index-DiwrgTda.js",
            "3f2a9c1b.js",
            "3f2a9c1b",
            "x/_astro/y.css",
            "assets/ä-ääääääää.js",
        ] {
            assert!(!is_immutable(path), "{path}");
        }
    }

    #[test]
    fn pages_are_told_from_assets() {
        for (path, asset) in [
            ("a.js", true),
            ("a/b.png", true),
            ("a.b/c", false),
            ("a.html", false),
            ("a.HTM", false),
            ("", false),
            ("a/", false),
        ] {
            assert_eq!(is_asset(path), asset, "{path}");
        }
    }
}
