//! Gates as they are written, and what is refused.

use alloc::string::ToString;

use super::*;

fn upstreams() -> BTreeMap<String, Upstream> {
    let plain = r#"{"addresses":["http://a.example"]}"#;
    let calls = r#"{"addresses":["http://a.example"],"protocol":"http2"}"#;
    BTreeMap::from([
        ("api".to_owned(), serde_json::from_str(plain).unwrap()),
        ("calls".to_owned(), serde_json::from_str(calls).unwrap()),
    ])
}

fn read(json: &str, upstreams: &BTreeMap<String, Upstream>) -> Result<Gate, KeyProblem> {
    let config: GateConfig = serde_json::from_str(json).unwrap();
    parse(&[config], upstreams).map(|mut gates| gates.remove(0))
}

#[test]
fn what_is_left_out_has_its_value() {
    let gate = read(r#"{"name":"home","kind":"http"}"#, &BTreeMap::new()).unwrap();
    let asked = Ask::Http(HttpAsk {
        upstream: None,
        path: "/".to_owned(),
        host: None,
        headers: BTreeMap::new(),
        status: vec![Status::Class(2)],
        body: None,
    });
    assert_eq!(gate.ask, asked);
    let timing = gate.timing;
    assert_eq!(
        (timing.rise, timing.fall),
        (1, Some(3)),
        "files answer the same each time"
    );
    assert_eq!(timing.interval, Span::from_secs(1));
    assert_eq!(timing.timeout, Span::from_secs(2));
    assert_eq!(timing.patience(), PREPARE_DEADLINE);
    for json in [
        r#"{"name":"home","kind":"http"}"#,
        r#"{"name":"api","kind":"http","upstream":"api"}"#,
        r#"{"name":"port","kind":"tcp","upstream":"api"}"#,
        r#"{"name":"calls","kind":"grpc","upstream":"calls"}"#,
    ] {
        let timing = read(json, &upstreams()).unwrap().timing;
        assert_eq!((timing.rise, timing.fall), (3, None), "{json}");
    }
    let command = r#"{"name":"db","kind":"exec","command":["migrate","--check"]}"#;
    assert_eq!(read(command, &BTreeMap::new()).unwrap().timing.rise, 3);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_wrong_is_told_by_its_key() {
    for (json, key, words) in [
        (r#"{"name":"No","kind":"http"}"#, "name", "1 to 63"),
        (
            r#"{"name":"upstream","kind":"http"}"#,
            "name",
            "every release",
        ),
        (
            r#"{"name":"a","kind":"http","upstream":"x"}"#,
            "upstream",
            "no [upstreams.x]",
        ),
        (
            r#"{"name":"a","kind":"http","upstream":"calls","host":"x.example"}"#,
            "host",
            "[upstreams.calls]",
        ),
        (r#"{"name":"a","kind":"tcp"}"#, "upstream", "kind tcp asks"),
        (
            r#"{"name":"a","kind":"grpc","upstream":"api"}"#,
            "upstream",
            "http2",
        ),
        (
            r#"{"name":"a","kind":"tcp","upstream":"api","path":"/"}"#,
            "path",
            "kind tcp, which has upstream",
        ),
        (
            r#"{"name":"a","kind":"exec","command":["x"],"status":[200]}"#,
            "status",
            "kind exec",
        ),
        (r#"{"name":"a","kind":"exec"}"#, "command", "program"),
        (
            r#"{"name":"a","kind":"exec","command":[""]}"#,
            "command",
            "program",
        ),
        (
            r#"{"name":"a","kind":"http","service":"x"}"#,
            "service",
            "kind http",
        ),
        (
            r#"{"name":"a","kind":"http","path":"a"}"#,
            "path",
            "start with /",
        ),
        (
            r#"{"name":"a","kind":"http","path":"/a b"}"#,
            "path",
            "escaped",
        ),
        (
            r#"{"name":"a","kind":"http","status":[]}"#,
            "status",
            "1 to 16",
        ),
        (
            r#"{"name":"a","kind":"http","headers":{"Host":"x"}}"#,
            "headers.Host",
            "key host",
        ),
        (
            r#"{"name":"a","kind":"http","headers":{"a b":"x"}}"#,
            "headers.a b",
            "no name",
        ),
        (
            r#"{"name":"a","kind":"http","headers":{"a":"x\r\ny"}}"#,
            "headers.a",
            "visible",
        ),
        (
            r#"{"name":"a","kind":"http","interval":"50ms"}"#,
            "interval",
            "100ms to 1m",
        ),
        (
            r#"{"name":"a","kind":"http","timeout":"2m"}"#,
            "timeout",
            "10ms to 1m",
        ),
        (r#"{"name":"a","kind":"http","rise":0}"#, "rise", "1 to 100"),
        (
            r#"{"name":"a","kind":"http","fall":101}"#,
            "fall",
            "1 to 100",
        ),
        (
            r#"{"name":"a","kind":"http","initial_delay":"6m"}"#,
            "initial_delay",
            "to 5m",
        ),
        (
            r#"{"name":"a","kind":"http","deadline":"11m"}"#,
            "deadline",
            "to 10m",
        ),
        (
            r#"{"name":"a","kind":"http","deadline":"9s","rise":10}"#,
            "deadline",
            "too short for 10",
        ),
    ] {
        let refused = read(json, &upstreams()).unwrap_err();
        assert_eq!(refused.key, format!("gates[0].{key}"), "{json}");
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

#[test]
fn gates_are_few_and_have_names_of_their_own() {
    let gate = |name: &str| -> GateConfig {
        serde_json::from_str(&format!(r#"{{"name":"{name}","kind":"http"}}"#)).unwrap()
    };
    let twice = parse(&[gate("a"), gate("b"), gate("a")], &BTreeMap::new()).unwrap_err();
    assert_eq!(twice.key, "gates[2].name");
    let many: Vec<_> = (0..=MAX_GATES).map(|at| gate(&format!("g{at}"))).collect();
    assert_eq!(parse(&many, &BTreeMap::new()).unwrap_err().key, "gates");
    assert_eq!(
        parse(&many[1..], &BTreeMap::new()).unwrap().len(),
        MAX_GATES
    );
}

#[test]
fn an_unknown_key_is_an_error() {
    let json = r#"{"name":"a","kind":"http","intervall":"1s"}"#;
    assert!(serde_json::from_str::<GateConfig>(json).is_err());
    assert!(serde_json::from_str::<GateConfig>(r#"{"name":"a","kind":"udp"}"#).is_err());
}

#[test]
fn a_gate_is_carried_as_it_was_read() {
    let json = r#"{"name":"api","kind":"http","upstream":"api","path":"/ok?x=1","host":"api.example","headers":{"X-A":"b"},
        "status":[204,"3xx"],"body":"/ok/","interval":"500ms","rise":2,"fall":4,"initial_delay":"1s","deadline":"30s"}"#;
    let gate = read(json, &upstreams()).unwrap();
    let carried = serde_json::to_string(&gate).unwrap();
    assert_eq!(serde_json::from_str::<Gate>(&carried).unwrap(), gate);
    assert!(carried.contains(r#""x-a":"b""#), "{carried}");
}
