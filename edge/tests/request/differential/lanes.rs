//! The same request at random through every lane: the same response, and the same end of it.

use helix_edge::listener::Lanes;

use super::{Counted, Read, cases, escaped, ours, seeds};
use crate::support::Edge;

/// How many cases are usual: each is two connections.
const CASES: u64 = 3000;

/// Fields that differ by time, or that say how the connection goes on.
const VARYING: [&str; 2] = ["date", "connection"];

/// All responses to a case, one after the other, each as its lines in order of the alphabet.
fn all(edge: &Edge, case: &[u8]) -> Vec<Vec<String>> {
    let mut client = edge.client();
    client.try_send(case);
    // A part of a body may end without a line end.
    let came = client.until_the_end().replace("HTTP/1.1 ", "\nHTTP/1.1 ");
    let mut responses: Vec<Vec<String>> = Vec::new();
    for line in came.lines().filter(|line| !line.is_empty()) {
        let line = match line.split_once(": ") {
            Some((name, _)) if VARYING.contains(&&*name.to_ascii_lowercase()) => continue,
            Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
            None => line.to_owned(),
        };
        match responses.last_mut() {
            Some(last) if !line.starts_with("HTTP/1.1 ") => last.push(line),
            _ => responses.push(vec![line]),
        }
    }
    responses.iter_mut().for_each(|lines| lines.sort_unstable());
    responses
}

#[test]
fn a_request_at_random_gets_the_same_response_through_every_lane() {
    let (all_lanes, pingora) = (Edge::start(), Edge::over(Lanes::Pingora));
    let seeds = seeds(CASES);
    let mut counted = Counted::default();
    for seed in seeds.clone() {
        let case = cases::case(seed);
        let read = ours::read(&case);
        counted.count(&read);
        if read == Read::Incomplete {
            // Both would wait for the rest.
            continue;
        }
        // Whether a response comes before what is wrong with a body is found depends on the lane. The end does not.
        let is_cut = matches!(read, Read::Refused(_)) && ours::head(&case).is_ok();
        let expected = all(&pingora, &case);
        // The second time it may be remembered.
        for time in 1..=2 {
            let got = all(&all_lanes, &case);
            // pingora does not read the rest of a body to go on behind it.
            let same = got.starts_with(&expected) && !expected.is_empty();
            let same = same || (is_cut && got.len() + expected.len() == 1);
            let case = escaped(&case);
            assert!(
                same,
                "{time}: HELIX_CASE_SEED={seed}\n{case}\n{got:#?}\nby pingora: {expected:#?}"
            );
        }
    }
    eprintln!("lanes: {counted:?}");
    counted.assert_varied(&seeds);
}
