use super::*;
use crate::forward::health::FAILURES_IN_A_ROW;

fn group(upstream: &str) -> Arc<Group> {
    let upstream = serde_json::from_str(upstream).unwrap();
    let allow = vec!["127.0.0.0/8".parse().unwrap()];
    Group::new(
        1,
        "shop/production".parse().unwrap(),
        upstream,
        Arc::new(Reachable {
            allow,
            ..Reachable::default()
        }),
    )
}

#[tokio::test]
async fn all_servers_get_requests() {
    let group =
        group(r#"{"addresses":["http://127.0.0.1:1","http://127.0.0.1:2","http://127.0.0.1:3"]}"#);
    let mut ports = std::collections::BTreeSet::new();
    let mut held = Vec::new();
    for _ in 0..200 {
        let picked = group.pick(&[]).await.unwrap();
        ports.insert(picked.addr.port());
        held.push(picked);
    }
    assert_eq!(ports.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_server_that_fails_gets_none_until_most_fail() {
    let group = group(r#"{"addresses":["http://127.0.0.1:1","http://127.0.0.1:2"]}"#);
    let mut failed = 0;
    while failed < FAILURES_IN_A_ROW {
        let picked = group.pick(&[]).await.unwrap();
        if picked.addr.port() == 1 {
            picked.report(Outcome::Failed);
            failed += 1;
        }
    }
    for _ in 0..100 {
        assert_eq!(group.pick(&[]).await.unwrap().addr.port(), 2);
    }
    for _ in 0..FAILURES_IN_A_ROW {
        group.pick(&[]).await.unwrap().report(Outcome::Failed);
    }
    assert!(group.pick(&[]).await.is_ok());
}

#[tokio::test]
async fn a_request_does_not_wait_for_ever_for_a_connection() {
    let group = group(
        r#"{"addresses":["http://127.0.0.1:1"],"max_connections":1,"timeouts":{"connect":"20ms"}}"#,
    );
    let _held = group.pick(&[]).await.unwrap();
    assert!(matches!(group.pick(&[]).await, Err(PickError::Busy)));
}

#[tokio::test]
async fn a_request_gets_the_connection_that_another_gives_back() {
    let group = group(
        r#"{"addresses":["http://127.0.0.1:1"],"max_connections":1,"timeouts":{"connect":"60s"}}"#,
    );
    let held = group.pick(&[]).await.unwrap();
    let waiting = tokio::spawn({
        let group = Arc::clone(&group);
        async move { group.pick(&[]).await.map(|picked| picked.addr.port()) }
    });
    tokio::task::yield_now().await;
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    assert_eq!(group.waiting.load(Ordering::Acquire), 0);
}

#[tokio::test]
async fn an_address_that_may_not_be_reached_is_never_picked() {
    let group = group(r#"{"addresses":["http://10.0.0.1","http://127.0.0.1:2"]}"#);
    for _ in 0..50 {
        assert_eq!(group.pick(&[]).await.unwrap().addr.port(), 2);
    }
    let group = self::group(r#"{"addresses":["http://169.254.169.254"]}"#);
    let error = group.pick(&[]).await.unwrap_err().to_string();
    assert!(error.contains("169.254.169.254"), "{error}");
}

#[tokio::test]
async fn another_lookup_keeps_what_is_known_of_a_server() {
    let group = group(r#"{"addresses":["http://localhost:1"]}"#);
    let picked = group.pick(&[]).await.unwrap();
    group.look_up().await;
    assert!(
        group
            .servers()
            .iter()
            .any(|server| Arc::ptr_eq(server, &picked.server))
    );
}

#[tokio::test]
async fn a_second_try_goes_to_another_server_or_nowhere() {
    let group = group(r#"{"addresses":["http://127.0.0.1:1","http://127.0.0.1:2"]}"#);
    let (one, two) = (
        "127.0.0.1:1".parse().unwrap(),
        "127.0.0.1:2".parse().unwrap(),
    );
    for _ in 0..50 {
        assert_eq!(group.pick(&[one]).await.unwrap().addr, two);
    }
    assert!(matches!(
        group.pick(&[one, two]).await,
        Err(PickError::NoAddress(_))
    ));
}
