//! Asks through an edge which release answers, as a visitor would, until it is the one that was committed.

use std::time::Duration;

use helix_routing::id::{Generation, ReleaseId};
use reqwest::header::{HOST, HeaderMap};
use reqwest::redirect::Policy;

/// An edge answers from memory; one that takes longer is asked again.
const TIMEOUT: Duration = Duration::from_secs(1);
/// First and longest wait between two probes.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection per edge and probe at the same time is enough; more sites than this share them.
const IDLE_CONNECTIONS: usize = 4;
/// A larger body is not worth reading to keep the connection.
const LARGEST_BODY: u64 = 64 * 1024;

/// What to ask, and what to see.
#[derive(Debug)]
pub(super) struct Probe {
    /// The edge's address.
    pub url: String,
    /// The site's host.
    pub host: String,
    /// At least this generation,
    pub generation: Generation,
    /// answered by one of these: where some of the visitors get the candidate, either shows the generation.
    pub releases: Vec<ReleaseId>,
}

/// A client that keeps its connections to the edges.
pub(super) fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .timeout(TIMEOUT);
    builder
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .build()
        .unwrap_or_default()
}

/// Returns what was seen once it is what was wanted. Ends only so, or when it is dropped.
pub(super) async fn until_seen(client: &reqwest::Client, probe: &Probe) -> (Generation, ReleaseId) {
    let mut pause = FIRST_PAUSE;
    loop {
        match ask(client, probe).await {
            Ok(Some((generation, release)))
                if generation >= probe.generation && probe.releases.contains(&release) =>
            {
                return (generation, release);
            }
            Ok(seen) => tracing::debug!(url = probe.url, host = probe.host, ?seen, "not yet"),
            Err(error) => {
                tracing::debug!(url = probe.url, host = probe.host, %error, "probe failed")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn ask(
    client: &reqwest::Client,
    probe: &Probe,
) -> Result<Option<(Generation, ReleaseId)>, reqwest::Error> {
    let response = client
        .get(&probe.url)
        .header(HOST, &probe.host)
        .send()
        .await?;
    let seen = read(response.headers());
    if response
        .content_length()
        .is_some_and(|length| length <= LARGEST_BODY)
    {
        response.bytes().await?;
    }
    Ok(seen)
}

fn read(headers: &HeaderMap) -> Option<(Generation, ReleaseId)> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let generation = text("x-helix-generation")?.parse().ok()?;
    Some((
        Generation(generation),
        text("x-helix-release")?.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_both_headers_shows_nothing() {
        let mut headers = HeaderMap::new();
        assert_eq!(read(&headers), None);
        headers.insert("x-helix-generation", "7".parse().unwrap());
        assert_eq!(read(&headers), None);
        headers.insert("x-helix-release", "0123456789abcdef0123".parse().unwrap());
        assert_eq!(
            read(&headers),
            Some((Generation(7), "0123456789abcdef0123".parse().unwrap()))
        );
        headers.insert("x-helix-generation", "-1".parse().unwrap());
        assert_eq!(read(&headers), None);
    }
}
