//! One question to Prometheus, with one number as its answer.
//!
//! Everything else, no answer, several, not a number, is an error in words: it says nothing about a release.

use std::time::Duration;

use futures_util::StreamExt;
use helix_routing::bake::Number;
use serde::Deserialize;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// One number needs less than this, in bytes.
const LARGEST_ANSWER: usize = 256 * 1024;
/// Most of an error that is kept, in characters.
const LONGEST_ERROR: usize = 200;

/// Where Prometheus answers, if it does.
#[derive(Clone, Debug)]
pub(super) struct Prometheus {
    client: reqwest::Client,
    url: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Answer {
    Success { data: Data },
    Error { error: String },
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Sample>),
    Scalar((f64, String)),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Sample {
    value: (f64, String),
}

impl Prometheus {
    pub(super) fn new(url: Option<&str>) -> Self {
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT);
        Self {
            client: builder.build().unwrap_or_default(),
            url: url.map(|url| format!("{}/api/v1/query", url.trim_end_matches('/'))),
        }
    }

    /// Asks, and says in words why there is no answer.
    pub(super) async fn ask(&self, query: &str) -> Result<Number, String> {
        let Some(url) = &self.url else {
            return Err("no Prometheus is configured".to_owned());
        };
        let answer = self.fetch(url, query).await;
        let number = answer.and_then(|body| read(&body));
        number.map_err(|error| error.chars().take(LONGEST_ERROR).collect())
    }

    async fn fetch(&self, url: &str, query: &str) -> Result<Vec<u8>, String> {
        let failed = |error: reqwest::Error| {
            // Of the chain only the end says what happened; the URL is the operator's.
            let mut cause: &dyn std::error::Error = &error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            format!("Prometheus was not reached: {cause}")
        };
        let asking = self.client.get(url).query(&[("query", query)]);
        let response = asking.send().await.map_err(failed)?;
        let status = response.status();
        let mut body = Vec::new();
        let mut parts = response.bytes_stream();
        while let Some(part) = parts.next().await {
            body.extend_from_slice(&part.map_err(failed)?);
            if body.len() > LARGEST_ANSWER {
                return Err("Prometheus answered with more than one number".to_owned());
            }
        }
        // It says in JSON what is wrong with a query, under 400 and 422.
        if status.is_success() || body.starts_with(b"{") {
            Ok(body)
        } else {
            Err(format!("Prometheus answered {}", status.as_u16()))
        }
    }
}

fn read(body: &[u8]) -> Result<Number, String> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| "what answered is no Prometheus".to_owned())?;
    let text = match answer {
        Answer::Error { error } => return Err(format!("Prometheus refused: {error}")),
        Answer::Success {
            data: Data::Scalar((_, text)),
        } => text,
        Answer::Success {
            data: Data::Vector(mut samples),
        } => match (samples.pop(), samples.is_empty()) {
            (Some(Sample { value: (_, text) }), true) => text,
            (None, _) => return Err("the query has no answer".to_owned()),
            (Some(_), false) => {
                return Err(format!("the query has {} answers", samples.len() + 1));
            }
        },
        Answer::Success {
            data: Data::Matrix(_) | Data::String(_),
        } => return Err("the query's answer is no number".to_owned()),
    };
    text.parse()
        .ok()
        .filter(|number: &f64| !number.is_nan())
        .map(Number)
        .ok_or_else(|| format!("the query's answer is {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_number_is_an_answer() {
        for (body, expected) in [
            (
                r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"2"]}}"#,
                Ok(2.0),
            ),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1,"0.5"]}]}}"#,
                Ok(0.5),
            ),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
                Err("no answer"),
            ),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"1"]},{"value":[1,"2"]}]}}"#,
                Err("2 answers"),
            ),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"NaN"]}]}}"#,
                Err("is NaN"),
            ),
            (
                r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
                Err("no number"),
            ),
            (
                r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#,
                Err("parse error"),
            ),
            ("<html>", Err("no Prometheus")),
            ("", Err("no Prometheus")),
        ] {
            match (read(body.as_bytes()), expected) {
                (Ok(number), Ok(expected)) => assert_eq!(number, Number(expected), "{body}"),
                (Err(error), Err(words)) => assert!(error.contains(words), "{body}: {error}"),
                (read, _) => unreachable!("{body}: {read:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_prometheus_that_is_not_there_is_an_error_in_words() {
        let error = Prometheus::new(None).ask("up").await.unwrap_err();
        assert!(error.contains("configured"), "{error}");
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let error = Prometheus::new(Some(&url)).ask("up").await.unwrap_err();
        assert!(error.contains("not reached"), "{error}");
    }
}
