//! What the rules of a release may ask about a request.

use std::borrow::Cow;

use helix_routing::host::Host;
use helix_routing::routes::Client;
use http::HeaderName;
use http::header::{ACCEPT, ACCEPT_LANGUAGE, COOKIE};

use crate::answer::RequestHead;
use crate::protection::{is_own_cookie, told};

impl Client for RequestHead<'_> {
    fn host(&self) -> Cow<'_, str> {
        Host::from_authority(self.authority)
            .map_or(Cow::Borrowed(""), |host| Cow::Owned(host.to_string()))
    }

    fn is_secure(&self) -> bool {
        self.secure
    }

    fn accept_language(&self) -> Option<&str> {
        std::str::from_utf8(self.fields.first(&ACCEPT_LANGUAGE)?).ok()
    }

    fn has_cookie(&self, name: &str) -> bool {
        let mut pairs = self
            .fields
            .all(&COOKIE)
            .flat_map(|value| value.split(|byte| *byte == b';'));
        let is_it = |cookie: &[u8]| {
            let end = cookie.iter().position(|byte| *byte == b'=');
            end.is_some_and(|end| cookie[..end].trim_ascii() == name.as_bytes())
        };
        !is_own_cookie(name) && pairs.any(is_it)
    }

    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some(match told(&name, self.fields.first(&name)?)? {
            Cow::Borrowed(value) => String::from_utf8_lossy(value),
            Cow::Owned(value) => Cow::Owned(String::from_utf8_lossy(&value).into_owned()),
        })
    }

    fn cookie(&self, name: &str) -> Option<Cow<'_, str>> {
        let cookies = self.fields.all(&COOKIE);
        let mut pairs = cookies
            .flat_map(|value| value.split(|byte| *byte == b';'))
            .filter_map(|cookie| {
                let end = cookie.iter().position(|byte| *byte == b'=')?;
                Some((cookie[..end].trim_ascii(), cookie[end + 1..].trim_ascii()))
            });
        let found = pairs.find(|(known, _)| !is_own_cookie(name) && *known == name.as_bytes());
        found.map(|(_, value)| String::from_utf8_lossy(value))
    }

    /// Without `Accept`, anything is accepted (RFC 9110 12.5.1).
    fn accepts_html(&self) -> bool {
        let mut values = self.fields.all(&ACCEPT).peekable();
        values.peek().is_none() || values.any(lists_html)
    }
}

fn lists_html(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|range| {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let kind = parts.next().unwrap_or_default();
        let html = ["text/html", "application/xhtml+xml", "text/*", "*/*"]
            .iter()
            .any(|name| kind.eq_ignore_ascii_case(name.as_bytes()));
        html && !parts.any(|part| matches!(part, b"q=0" | b"q=0.0" | b"q=0.00" | b"q=0.000"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_framing::Fields;
    use http::{HeaderMap, HeaderValue, Method};

    fn with<T>(
        field: Option<(HeaderName, &'static str)>,
        ask: impl FnOnce(&RequestHead<'_>) -> T,
    ) -> T {
        let field = field.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let map = HeaderMap::from_iter(field);
        ask(&RequestHead {
            method: &Method::GET,
            authority: "Shop.Example:8080",
            path: "/",
            query: None,
            fields: Fields::Map(&map),
            secure: false,
        })
    }

    #[test]
    fn cookies_are_known_by_their_name() {
        for (value, has) in [
            ("beta=1", true),
            ("a=b; beta=", true),
            ("a=b;beta=x; c=d", true),
            ("xbeta=1", false),
            ("a=beta=1", false),
            ("beta", false),
            ("Beta=1", false),
        ] {
            assert_eq!(
                with(Some((COOKIE, value)), |head| head.has_cookie("beta")),
                has
            );
        }
        assert_eq!(with(None, |head| head.host().into_owned()), "shop.example");
    }

    #[test]
    fn pages_are_accepted_where_the_client_says_so_or_nothing() {
        for (value, accepts) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", true),
            ("*/*", true),
            ("application/json, */*;q=0", false),
            ("application/json", false),
            ("image/avif,image/webp", false),
            ("", false),
        ] {
            assert_eq!(
                with(Some((ACCEPT, value)), |head| head.accepts_html()),
                accepts
            );
        }
        assert!(with(None, |head| head.accepts_html()));
    }
}
