//! llhttp in its strict mode, by Node, as a second opinion that shares no code with ours.
//!
//! Needs Node; without it the test says that it was skipped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Counted, Differences, Message, Read, cases, escaped, ours, seeds};

/// How many cases are usual.
const CASES: u64 = 40_000;

/// What llhttp makes of each case, or nothing where there is no Node.
fn read(cases: &[(u64, Vec<u8>)]) -> Option<Vec<Read>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/request/differential/llhttp.js");
    let mut node = Command::new("node")
        .arg("--no-warnings")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    // It answers when it has read all.
    let mut input = node.stdin.take().unwrap();
    for (_, case) in cases {
        input
            .write_all(&u32::try_from(case.len()).unwrap().to_be_bytes())
            .unwrap();
        input.write_all(case).unwrap();
    }
    drop(input);
    let lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let reads: Vec<_> = lines
        .map(|line| said(&serde_json::from_str(&line.unwrap()).unwrap()))
        .collect();
    assert!(node.wait().unwrap().success(), "node failed");
    assert_eq!(reads.len(), cases.len());
    Some(reads)
}

fn said(line: &Value) -> Read {
    if let Some(why) = line["refused"].as_str() {
        return Read::Refused(why.to_owned());
    }
    if line["incomplete"] == true {
        return Read::Incomplete;
    }
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let flat: Vec<_> = line["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(text)
        .collect();
    let mut fields: Vec<_> = flat
        .chunks(2)
        .map(|pair| (pair[0].to_ascii_lowercase(), escaped(&bytes(&pair[1]))))
        .collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    Read::Message(Message {
        length: usize::try_from(line["length"].as_u64().unwrap()).unwrap(),
        method: text(&line["method"]),
        target: text(&line["target"]),
        fields,
        body: escaped(&bytes(line["body"].as_str().unwrap())),
    })
}

/// Characters that stand for single bytes.
fn bytes(text: &str) -> Vec<u8> {
    text.chars()
        .map(|one| u8::try_from(u32::from(one)).unwrap())
        .collect()
}

/// The methods that llhttp knows and a case may have. It takes no other (RFC 9110 9.1: any token is one).
const KNOWN: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "M-SEARCH",
];

/// The case without what llhttp is known to refuse, or to overlook, though it is legal.
fn tamed(case: &[u8]) -> Vec<u8> {
    let Ok((head, start)) = ours::head(case) else {
        return case.to_vec();
    };
    let (first, rest) = case[..start].split_at(head.method.as_str().len());
    let method = if KNOWN.contains(&head.method.as_str()) {
        first
    } else {
        b"PUT"
    };
    let mut tamed = [method, rest].concat();
    // A tab around a value is white space like any other (RFC 9110 5.6.3).
    for name in ["content-length:", "transfer-encoding:"] {
        for at in places(&tamed, name) {
            let line = tamed[at..].iter_mut().take_while(|byte| **byte != b'\r');
            line.filter(|byte| **byte == b'\t')
                .for_each(|byte| *byte = b' ');
        }
    }
    // What frames a message is left out of its trailers, not refused there (RFC 9110 6.5.1).
    let mut body = case[start..].to_vec();
    for name in ["content-length:", "transfer-encoding:"] {
        for at in places(&body, name) {
            body[at] = b'x';
        }
    }
    tamed.extend(body);
    tamed
}

/// Where a line begins with `name`.
fn places(bytes: &[u8], name: &str) -> Vec<usize> {
    let is_start = |at: &usize| *at == 0 || bytes[at - 1] == b'\n';
    let is_name = |at: &usize| {
        bytes[*at..]
            .get(..name.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
    };
    (0..bytes.len()).filter(is_start).filter(is_name).collect()
}

/// Whether llhttp, which may take more than we do, reads what we take as we do.
fn agree(ours: &Read, theirs: &Read) -> bool {
    match (ours, theirs) {
        (Read::Refused(_), _) | (Read::Incomplete, Read::Incomplete | Read::Refused(_)) => true,
        (Read::Incomplete | Read::Message(_), _) => ours == theirs,
    }
}

/// The seeds of cases on which we differ.
fn differing(
    cases: &[(u64, Vec<u8>)],
    counted: &mut Counted,
    differences: &mut Differences,
) -> Option<Vec<u64>> {
    let mut seeds = Vec::new();
    for ((seed, case), theirs) in cases.iter().zip(read(cases)?) {
        let ours = ours::read(case);
        counted.count(&ours);
        if !agree(&ours, &theirs) {
            differences.add(*seed, case, &ours, &theirs);
            seeds.push(*seed);
        }
    }
    Some(seeds)
}

#[test]
fn llhttp_reads_what_we_take_as_we_do() {
    let seeds = seeds(CASES);
    let cases: Vec<_> = seeds
        .clone()
        .map(|seed| (seed, cases::case(seed)))
        .collect();
    let mut counted = Counted::default();
    let Some(differ) = differing(&cases, &mut counted, &mut Differences::default()) else {
        eprintln!("skipped: no Node");
        return;
    };
    eprintln!("llhttp: {counted:?}, {} known to differ", differ.len());
    counted.assert_varied(&seeds);
    let tame: Vec<_> = differ
        .into_iter()
        .map(|seed| (seed, tamed(&cases::case(seed))))
        .collect();
    let mut unknown = Differences::default();
    differing(&tame, &mut Counted::default(), &mut unknown);
    unknown.assert_none();
}
