//! Pure: whether a response is the one that a gate wants to see.

use helix_routing::gate::{BodyTest, HttpAsk, Status};

use super::drive::Probed;

/// Which responses are good.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    statuses: &'a [Status],
    body: Option<(&'a str, BodyTest)>,
}

impl<'a> Judge<'a> {
    /// # Errors
    /// When the body's pattern cannot be used here, although the release was made with it.
    pub(super) fn new(ask: &'a HttpAsk) -> Result<Self, Probed> {
        let body = match &ask.body {
            None => None,
            Some(wanted) => {
                let test = wanted
                    .test()
                    .map_err(|error| Probed::impossible(&ask.path, &error.to_string()))?;
                Some((wanted.as_str(), test))
            }
        };
        Ok(Self {
            statuses: &ask.status,
            body,
        })
    }

    /// Judges a response. `cause` is what the edge knows of its origin.
    pub(super) fn judge(
        &self,
        asked: &str,
        status: u16,
        body: &[u8],
        cause: Option<&str>,
    ) -> Probed {
        let problem = if !self.statuses.iter().any(|good| good.covers(status)) {
            let cause = cause.map_or_else(String::new, |cause| format!(" ({cause})"));
            Some(format!(
                "answered {status}{cause}, wanted {}",
                self.wanted()
            ))
        } else {
            match &self.body {
                Some((wanted, test)) if !test.is_met(body) => Some(format!(
                    "answered {status}, but its body does not hold {wanted:?}"
                )),
                Some(_) | None => None,
            }
        };
        let probed = match problem {
            None => Probed::good(asked),
            Some(problem) => Probed::bad(asked, &problem),
        };
        probed.with(status, Some(body))
    }

    fn wanted(&self) -> String {
        let statuses: Vec<_> = self.statuses.iter().map(ToString::to_string).collect();
        statuses.join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::gate::watch::Outcome;

    fn ask(json: &str) -> HttpAsk {
        let common = r#""upstream":null,"path":"/","host":null,"headers":{}"#;
        serde_json::from_str(&format!("{{{common},{json}}}")).unwrap()
    }

    #[test]
    fn a_response_is_judged_by_status_and_body() {
        let plain = ask(r#""status":["2xx",301],"body":null"#);
        let held = ask(r#""status":["2xx"],"body":"ready""#);
        let fits = ask(r#""status":[503],"body":"/^v\\d+$/""#);
        for (ask, status, body, reason) in [
            (&plain, 204, "", None),
            (&plain, 301, "moved", None),
            (
                &plain,
                302,
                "",
                Some("answered 302 (why), wanted 2xx or 301"),
            ),
            (&held, 200, "is ready", None),
            (
                &held,
                200,
                "starting",
                Some("answered 200, but its body does not hold \"ready\""),
            ),
            (&held, 500, "ready", Some("answered 500 (why), wanted 2xx")),
            (&fits, 503, "v12", None),
            (
                &fits,
                503,
                "v12 ",
                Some("answered 503, but its body does not hold \"/^v\\\\d+$/\""),
            ),
        ] {
            let judge = Judge::new(ask).unwrap();
            let probed = judge.judge("there", status, body.as_bytes(), Some("why"));
            assert_eq!(probed.reason.as_deref(), reason);
            assert_eq!(probed.outcome == Outcome::Good, reason.is_none());
            assert_eq!(probed.status, Some(status));
            assert_eq!(probed.body.as_deref(), Some(body));
        }
    }
}
