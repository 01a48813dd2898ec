//! From the path of a URL to the path of a file, and back.
//!
//! Pure. Decoded once. What no file can be called is refused instead of repaired; what merely is not the
//! canonical spelling of a path is marked, so that it is answered by a redirect to that and never by the
//! file: an escaped or a doubled slash finds a file only on the second try, spelled as everybody spells it.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// The path cannot be that of any file, and nobody sends it by accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path {0}")]
pub struct BadPath(&'static str);

/// The path of a URL, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Without the slash at its start, with the one at its end; parts are never empty.
    pub path: Cow<'a, str>,
    /// Whether it was spelled as [`encode`] would, but for escapes that need not be.
    pub canonical: bool,
}

/// Decodes `path`, the path of a URL (RFC 3986 3.3). One without a slash at its start means nothing.
///
/// # Errors
/// When an escape is malformed, or the path holds a control character, a backslash or a dot segment, or is
/// not UTF-8.
pub fn decode(path: &str) -> Result<Option<Decoded<'_>>, BadPath> {
    let Some(rest) = path.strip_prefix('/') else {
        return Ok(None);
    };
    let decoded = if rest.bytes().all(is_plain) {
        Decoded {
            path: Cow::Borrowed(rest),
            canonical: true,
        }
    } else {
        unescape(rest)?
    };
    let decoded = without_empty_parts(decoded);
    let mut parts = decoded.path.as_bytes().split(|byte| *byte == b'/');
    if parts.any(|part| matches!(part, b"." | b"..")) {
        return Err(BadPath("has a dot segment"));
    }
    Ok(Some(decoded))
}

/// Escapes `path`, the decoded path of a file, so that it is that of a URL, without a slash at its start.
#[must_use]
pub fn encode(path: &str) -> Cow<'_, str> {
    if path.bytes().all(is_plain) {
        return Cow::Borrowed(path);
    }
    let mut encoded = String::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes everything");
        }
    }
    Cow::Owned(encoded)
}

/// What stands for itself: `pchar` of RFC 3986, and the slash.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
                | b'/'
        )
}

fn unescape(rest: &str) -> Result<Decoded<'_>, BadPath> {
    let mut bytes = Vec::with_capacity(rest.len());
    let mut canonical = true;
    let mut rest = rest.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, after) = if *first == b'%' {
            let (digits, after) = tail
                .split_first_chunk::<2>()
                .ok_or(BadPath("has a malformed escape"))?;
            let byte = escaped(*digits).ok_or(BadPath("has a malformed escape"))?;
            // Letters, digits and the slash are never escaped, and escapes are in capitals.
            canonical &= !byte.is_ascii_alphanumeric()
                && !matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/')
                && !digits.iter().any(u8::is_ascii_lowercase);
            (byte, after)
        } else {
            canonical &= is_plain(*first);
            (*first, tail)
        };
        bytes.push(byte);
        rest = after;
    }
    if bytes
        .iter()
        .any(|byte| byte.is_ascii_control() || *byte == b'\\')
    {
        return Err(BadPath("has a control character or a backslash"));
    }
    let path = String::from_utf8(bytes).map_err(|_| BadPath("is not UTF-8"))?;
    Ok(Decoded {
        path: Cow::Owned(path),
        canonical,
    })
}

fn without_empty_parts(decoded: Decoded<'_>) -> Decoded<'_> {
    if !decoded.path.starts_with('/') && !decoded.path.contains("//") {
        return decoded;
    }
    let mut path = String::with_capacity(decoded.path.len());
    for part in decoded.path.split('/').filter(|part| !part.is_empty()) {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(part);
    }
    if decoded.path.ends_with('/') && !path.is_empty() {
        path.push('/');
    }
    Decoded {
        path: Cow::Owned(path),
        canonical: false,
    }
}

fn escaped([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some(digit(high)? * 16 + digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    #[test]
    fn paths_are_decoded_once() {
        for (path, expected, canonical) in [
            ("/", "", true),
            ("/a", "a", true),
            ("/a/", "a/", true),
            ("/a/b.html", "a/b.html", true),
            ("/a%20b", "a b", true),
            ("/%C3%A4", "ä", true),
            ("/%c3%a4", "ä", false),
            ("/100%25", "100%", true),
            ("/%2541", "%41", true),
            ("/%61", "a", false),
            ("/a+b", "a+b", true),
            ("/a%2Bb", "a+b", true),
            ("/[a]", "[a]", false),
            ("/%5Ba%5D", "[a]", true),
            ("/...", "...", true),
            ("/a%2Fb", "a/b", false),
            ("/a%2f", "a/", false),
            ("//", "", false),
            ("//evil.example/", "evil.example/", false),
            ("/%2F/evil.example", "evil.example", false),
            ("/a//b", "a/b", false),
        ] {
            let decoded = decode(path).unwrap().unwrap();
            assert_eq!(
                (&*decoded.path, decoded.canonical),
                (expected, canonical),
                "{path}"
            );
        }
        assert_eq!(decode("*").unwrap(), None);
        assert_eq!(decode("").unwrap(), None);
    }

    #[test]
    fn what_no_file_can_be_called_is_refused() {
        for path in [
            "/%",
            "/%4",
            "/%zz",
            "/%-1",
            "/%00",
            "/a%0a",
            "/a\\b",
            "/a%5Cb",
            "/..",
            "/../a",
            "/a/../b",
            "/a/./b",
            "/.",
            "/%2e%2e/a",
            "/.%2E",
            "/..%2fetc/passwd",
            "/a%2f..%2fb",
            "/%ff",
            "/%c3",
            "/%c0%ae%c0%ae/",
            "/%7f",
            "/\u{1}",
        ] {
            assert!(decode(path).is_err(), "{path} was taken");
        }
    }

    proptest! {
        #[test]
        fn no_decoded_path_climbs_or_holds_what_no_file_does(path in "/[a-c%./\\\\0-9A-F]{0,30}") {
            if let Ok(Some(decoded)) = decode(&path) {
                let decoded = decoded.path;
                prop_assert!(!decoded.starts_with('/') && !decoded.contains("//"));
                prop_assert!(!decoded.contains('\\') && !decoded.contains('\0'));
                prop_assert!(decoded.split('/').all(|part| part != ".." && part != "."));
            }
        }

        #[test]
        fn what_is_encoded_decodes_to_itself_and_is_canonical(path in "[a-zA-Z0-9 %?#+@\\[\\]äö]{1,12}(/[a-z%]{1,5}){0,3}/?") {
            let url = format!("/{}", encode(&path));
            let decoded = decode(&url).unwrap().unwrap();
            prop_assert_eq!(&*decoded.path, path.as_str());
            prop_assert!(decoded.canonical);
        }
    }
}
