//! Pure. What a registry wants to be shown: the header `WWW-Authenticate` of its refusal (RFC 9110, 11.6.1).

/// Scopes of one challenge that are asked for; a registry that names more is answered for these.
const MAX_SCOPES: usize = 8;

/// A way to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password.
    Basic,
    /// A token, given out at another address.
    Bearer {
        /// Where.
        realm: String,
        /// For what server.
        service: Option<String>,
        /// To do what, each such as `repository:shop:pull,push`.
        scopes: Vec<String>,
    },
}

/// The challenges of one header that are understood, in their order.
pub(super) fn challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        let (word, after) = rest.split_at(end);
        let word = word.to_ascii_lowercase();
        match after.strip_prefix('=') {
            Some(after) => {
                let Some((value, after)) = value(after) else {
                    break;
                };
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.push((word, value));
                }
                rest = after;
            }
            None => {
                found.push((word, Vec::new()));
                rest = after;
            }
        }
    }
    found.into_iter().filter_map(understood).collect()
}

fn understood((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let parameter = |name: &str| {
        let found = parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scopes: parameter("scope")
                .unwrap_or_default()
                .split_ascii_whitespace()
                .take(MAX_SCOPES)
                .map(str::to_owned)
                .collect(),
        }),
        _ => None,
    }
}

/// A token or a quoted string, and what follows it. None when the quotes are not closed.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !is_token(c)).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// A character of a token (RFC 9110, 5.6.2), and those of the base64 that some schemes have in its place.
const fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(c, '!' | '#'..='\'' | '*' | '+' | '-' | '.' | '/' | '^'..='`' | '|' | '~')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scopes: &[&str]) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        }
    }

    #[test]
    fn challenges_are_read_however_they_are_written() {
        let realm = "https://auth.example/token";
        for (header, expected) in [
            ("Basic realm=\"x\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://auth.example/token\",service=\"r.example\",scope=\"repository:a/b:pull,push\"",
                vec![bearer(
                    realm,
                    Some("r.example"),
                    &["repository:a/b:pull,push"],
                )],
            ),
            (
                "Bearer service=r, scope=\"a:b:pull  c:d:push\", error=\"insufficient_scope\", realm=\"https://auth.example/token\"",
                vec![bearer(realm, Some("r"), &["a:b:pull", "c:d:push"])],
            ),
            (
                "Negotiate, Basic realm=\"a \\\"b\\\", c\", Bearer realm=\"https://auth.example/token\"",
                vec![Challenge::Basic, bearer(realm, None, &[])],
            ),
            ("Bearer service=\"without a realm\"", vec![]),
            ("Bearer realm=\"never closed", vec![]),
            ("=,=\"", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(challenges(header), expected, "{header}");
        }
    }

    #[test]
    fn any_header_is_read_to_an_end() {
        for seed in 0..2000_u64 {
            let mut state = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let text: String = (0..40)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(3);
                    let of = ['B', 'a', '=', '"', ',', ' ', '\\', '/', 'ü'];
                    of[usize::try_from(state >> 33).unwrap() % of.len()]
                })
                .collect();
            let _ = challenges(&text);
        }
    }
}
