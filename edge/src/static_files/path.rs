//! From the path of a URL to the path of a file.
//!
//! Pure. Decoded once, part by part, so that an escaped slash never becomes a separator and an escaped
//! dot never climbs. What no file can be called is refused instead of repaired.

/// The path cannot be that of any file, and nobody sends it by accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path {0}")]
pub struct BadPath(&'static str);

/// The path within a release that the path of a URL means: without the slash at its start, and with the
/// one at its end. None when it is well formed, but no file or folder can have it.
///
/// # Errors
/// When an escape is malformed, or it hides a control character, a backslash or a dot segment.
pub fn decode(path: &str) -> Result<Option<String>, BadPath> {
    let Some(parts) = path.strip_prefix('/') else {
        return Ok(None);
    };
    let mut decoded = String::with_capacity(parts.len());
    let mut nameable = true;
    let mut parts = parts.split('/').peekable();
    while let Some(part) = parts.next() {
        let name = decode_part(part)?;
        let last = parts.peek().is_none();
        // Only the last part may be empty: that is a folder. An escaped slash is part of a name, and no name has one.
        nameable &= (last || !name.is_empty()) && !name.contains('/');
        decoded.push_str(&name);
        if !last {
            decoded.push('/');
        }
    }
    Ok(nameable.then_some(decoded))
}

fn decode_part(part: &str) -> Result<String, BadPath> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let byte = tail
                .first_chunk()
                .and_then(|digits| escaped(*digits))
                .ok_or(BadPath("has a malformed escape"))?;
            bytes.push(byte);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    if bytes
        .iter()
        .any(|byte| byte.is_ascii_control() || *byte == b'\\')
    {
        return Err(BadPath("has a control character or a backslash"));
    }
    if matches!(bytes.as_slice(), b"." | b"..") {
        return Err(BadPath("has a dot segment"));
    }
    String::from_utf8(bytes).map_err(|_| BadPath("is not UTF-8"))
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
    use proptest::prelude::*;

    #[test]
    fn paths_are_decoded_once_and_part_by_part() {
        for (path, expected) in [
            ("/", Some("")),
            ("/a", Some("a")),
            ("/a/", Some("a/")),
            ("/a/b.html", Some("a/b.html")),
            ("/a%20b", Some("a b")),
            ("/%C3%A4", Some("ä")),
            ("/100%25", Some("100%")),
            ("/%2541", Some("%41")),
            ("/a+b", Some("a+b")),
            ("/...", Some("...")),
            ("/a%2Fb", None),
            ("/a%2fb", None),
            ("//", None),
            ("//evil.example/", None),
            ("/a//b", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(decode(path).unwrap().as_deref(), expected, "{path}");
        }
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
            "/%ff",
            "/%c3",
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
                prop_assert!(!decoded.starts_with('/') && !decoded.contains('\\') && !decoded.contains('\0'));
                prop_assert!(decoded.split('/').all(|part| part != ".." && part != "."));
                prop_assert_eq!(decoded.matches('/').count(), path.matches('/').count() - 1);
            }
        }
    }
}
