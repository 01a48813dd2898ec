//! Tables over what may be stored and used.

use super::*;
use http::HeaderValue;

const NOW: u64 = 1_800_000_000;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn at(offset: i64) -> String {
    let seconds = NOW.checked_add_signed(offset).unwrap();
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

fn store(
    request: &[(&'static str, &str)],
    status: u16,
    response: &[(&'static str, &str)],
) -> Result<Freshness, Unstorable> {
    let status = StatusCode::from_u16(status).unwrap();
    let (request, response) = (headers(request), headers(response));
    storable(&Method::GET, &request, status, &response, NOW, NOW).map(|(freshness, _)| freshness)
}

#[test]
fn what_a_shared_cache_may_store_is_stored() {
    let old = at(-1000);
    for (request, status, response, lifetime) in [
        (&[][..], 200, &[("cache-control", "max-age=60")][..], 60),
        (&[], 200, &[("cache-control", "max-age=60, s-maxage=5")], 5),
        (&[], 599, &[("cache-control", "max-age=60")], 60),
        (&[], 200, &[("last-modified", &*old)], 100),
        (
            &[],
            599,
            &[("last-modified", &*old), ("cache-control", "public")],
            100,
        ),
        (&[], 200, &[("etag", "\"a\"")], 0),
        (&[("cookie", "a=b")], 200, &[("last-modified", &*old)], 0),
        (
            &[("cookie", "a=b")],
            200,
            &[("cache-control", "max-age=60")],
            60,
        ),
        (
            &[("authorization", "x")],
            200,
            &[("cache-control", "max-age=60, public")],
            60,
        ),
        (
            &[("authorization", "x")],
            200,
            &[("cache-control", "s-maxage=60")],
            60,
        ),
        (
            &[],
            200,
            &[("cache-control", "s-maxage=60"), ("set-cookie", "a=b")],
            60,
        ),
        (
            &[],
            200,
            &[("cache-control", "no-store, must-understand, max-age=9")],
            9,
        ),
        (
            &[],
            200,
            &[("cache-control", "private=\"x\", max-age=9")],
            9,
        ),
        (
            &[],
            404,
            &[
                ("cache-control", "no-store"),
                ("cdn-cache-control", "max-age=8"),
            ],
            8,
        ),
    ] {
        let stored = store(request, status, response);
        assert_eq!(
            stored.map(|freshness| freshness.lifetime),
            Ok(lifetime),
            "{request:?} {status} {response:?}"
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn what_a_shared_cache_may_not_store_is_not_stored() {
    let old = at(-1000);
    for (request, status, response, why) in [
        (&[][..], 200, &[][..], Unstorable::Useless),
        (
            &[],
            200,
            &[("cache-control", "max-age=0")],
            Unstorable::Useless,
        ),
        (&[], 201, &[("last-modified", &*old)], Unstorable::Useless),
        (
            &[],
            206,
            &[("cache-control", "max-age=60")],
            Unstorable::Status,
        ),
        (
            &[],
            304,
            &[("cache-control", "max-age=60")],
            Unstorable::Status,
        ),
        (
            &[],
            599,
            &[("cache-control", "must-understand, max-age=60")],
            Unstorable::Status,
        ),
        (
            &[],
            200,
            &[("cache-control", "No-Store, max-age=60")],
            Unstorable::NoStore,
        ),
        (
            &[("cache-control", "no-store")],
            200,
            &[("cache-control", "max-age=60")],
            Unstorable::NoStore,
        ),
        (
            &[],
            200,
            &[("cache-control", "private, max-age=60")],
            Unstorable::Private,
        ),
        (
            &[("authorization", "x")],
            200,
            &[("cache-control", "max-age=60")],
            Unstorable::Authorization,
        ),
        (
            &[],
            200,
            &[("cache-control", "max-age=60"), ("set-cookie", "a=b")],
            Unstorable::SetCookie,
        ),
        (
            &[],
            200,
            &[("cache-control", "max-age=60"), ("vary", "a, *")],
            Unstorable::VaryAny,
        ),
    ] {
        let stored = store(request, status, response);
        assert_eq!(stored, Err(why), "{request:?} {status} {response:?}");
    }
    let status = StatusCode::OK;
    let response = headers(&[("cache-control", "max-age=60")]);
    for method in [Method::HEAD, Method::POST] {
        let stored = storable(&method, &HeaderMap::new(), status, &response, NOW, NOW);
        assert_eq!(stored, Err(Unstorable::Method));
    }
}

#[test]
fn age_and_expiry_are_counted_from_what_the_origin_says() {
    let (past, future, now) = (at(-7200), at(3600), at(0));
    for (response, fresh) in [
        (
            &[("cache-control", "max-age=3600"), ("age", "3599")][..],
            true,
        ),
        (&[("cache-control", "max-age=3600"), ("age", "3600")], false),
        (&[("cache-control", "max-age=3600"), ("age", "0, 0")], false),
        (
            &[
                ("cache-control", "max-age=3600"),
                ("age", "0"),
                ("age", "0"),
            ],
            false,
        ),
        (&[("cache-control", "max-age=3600"), ("age", "old")], false),
        (&[("cache-control", "max-age=3600"), ("age", "-1")], false),
        (
            &[("cache-control", "max-age=3600"), ("date", &*past)],
            false,
        ),
        (
            &[("expires", &*future), ("date", &*now), ("etag", "\"a\"")],
            true,
        ),
        (
            &[("expires", &*past), ("date", &*now), ("etag", "\"a\"")],
            false,
        ),
        (&[("expires", "0"), ("etag", "\"a\"")], false),
        (&[("expires", &*past), ("cache-control", "max-age=1")], true),
        (
            &[
                ("expires", &*future),
                ("cache-control", "max-age=0"),
                ("etag", "\"a\""),
            ],
            false,
        ),
    ] {
        let freshness = store(&[], 200, response).unwrap();
        assert_eq!(freshness.staleness(NOW).is_none(), fresh, "{response:?}");
    }
}

#[test]
fn a_stored_response_is_used_as_both_sides_allow() {
    let ten = "max-age=10";
    for (response, after, request, expected) in [
        (ten, 9, "", Use::Fresh),
        (ten, 10, "", Use::Validate),
        (ten, 5, "max-age=4", Use::Validate),
        (ten, 5, "max-age=5", Use::Fresh),
        (ten, 5, "min-fresh=6", Use::Validate),
        (ten, 5, "min-fresh=5", Use::Fresh),
        (ten, 5, "no-cache", Use::Validate),
        (ten, 15, "max-stale=5", Use::Stale),
        (ten, 16, "max-stale=5", Use::Validate),
        (ten, 99, "max-stale", Use::Stale),
        ("max-age=10, no-cache", 1, "", Use::Validate),
        (
            "max-age=10, must-revalidate",
            15,
            "max-stale",
            Use::Validate,
        ),
        ("s-maxage=10", 15, "max-stale", Use::Validate),
        (
            "s-maxage=10, stale-while-revalidate=10",
            15,
            "",
            Use::WhileRevalidating,
        ),
        (
            "max-age=10, stale-while-revalidate=10",
            20,
            "",
            Use::Validate,
        ),
        (
            "max-age=10, stale-while-revalidate=10, must-revalidate",
            15,
            "",
            Use::Validate,
        ),
        (
            "max-age=10, stale-while-revalidate=10",
            15,
            "max-age=99",
            Use::Validate,
        ),
    ] {
        let freshness = store(&[], 200, &[("cache-control", response), ("etag", "\"a\"")]).unwrap();
        let request = directives::of_request(&headers(&[("cache-control", request)]));
        let used = freshness.usable(&request, false, NOW + after);
        assert_eq!(used, expected, "{response} after {after} for {request:?}");
    }
}

#[test]
fn a_failure_is_covered_by_a_stale_response_only_where_that_is_allowed() {
    for (response, after, request, answered, covered) in [
        ("max-age=10, stale-if-error=60", 69, "", true, true),
        ("max-age=10, stale-if-error=60", 70, "", true, false),
        (
            "max-age=10, stale-if-error=60, must-revalidate",
            20,
            "",
            false,
            false,
        ),
        ("s-maxage=10, stale-if-error=60", 20, "", true, true),
        ("max-age=10", 20, "", true, false),
        ("max-age=10", 20, "", false, true),
        ("max-age=10", 80, "", false, false),
        ("s-maxage=10", 20, "", false, false),
        ("max-age=10, no-cache", 5, "", false, false),
        ("max-age=10", 100, "stale-if-error=100", true, true),
    ] {
        let freshness = store(&[], 200, &[("cache-control", response), ("etag", "\"a\"")]).unwrap();
        let request = directives::of_request(&headers(&[("cache-control", request)]));
        assert_eq!(
            freshness.usable_after_failure(&request, answered, NOW + after),
            covered,
            "{response} after {after}"
        );
    }
}

#[test]
fn who_is_authorised_gets_only_what_is_open_to_them() {
    let closed = store(&[], 200, &[("cache-control", "max-age=60")]).unwrap();
    let open = store(&[], 200, &[("cache-control", "max-age=60, public")]).unwrap();
    let request = RequestDirectives::default();
    assert_eq!(closed.usable(&request, true, NOW), Use::Validate);
    assert_eq!(open.usable(&request, true, NOW), Use::Fresh);
}

proptest::proptest! {
    #[test]
    fn what_is_stale_never_becomes_fresh_again(
        lifetime in 0..10_000_u64, age in proptest::option::of(0..10_000_u64), first in 0..20_000_u64, later in 0..20_000_u64,
    ) {
        let control = format!("max-age={lifetime}");
        let mut lines = vec![("cache-control", control.as_str()), ("etag", "\"a\"")];
        let age = age.map(|age| age.to_string());
        lines.extend(age.as_deref().map(|age| ("age", age)));
        let freshness = store(&[], 200, &lines).unwrap();
        let request = RequestDirectives::default();
        if freshness.usable(&request, false, NOW + first) == Use::Validate {
            proptest::prop_assert_eq!(freshness.usable(&request, false, NOW + first + later), Use::Validate);
        }
        proptest::prop_assert!(freshness.age(NOW + first) <= freshness.age(NOW + first + later));
    }

    #[test]
    fn nothing_an_origin_says_makes_it_panic(control in "[ -~]{0,40}", age in "[ -~]{0,12}", expires in "[ -~]{0,30}") {
        let lines = [("cache-control", &*control), ("age", &*age), ("expires", &*expires), ("date", &*expires)];
        if let Ok(freshness) = store(&[], 200, &lines) {
            let _ = freshness.usable(&RequestDirectives::default(), false, u64::MAX);
        }
    }
}
