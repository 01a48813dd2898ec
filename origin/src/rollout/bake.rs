//! How long which release bakes: what its own rules say, else what origin's config says.

use helix_routing::id::{Environment, SiteId};
use helix_routing::rollout::BakePlan;
use helix_routing::routes::{Routes, Span};
use serde::{Deserialize, Serialize};

use super::RolloutError;

/// Origin's part of bakes: the table `[bake]` of its config.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct BakeConfig {
    /// How long a release in production is watched that only serves files, and says nothing of it.
    pub window: Span,
    /// The same, for one that sends requests on.
    pub window_with_upstreams: Span,
    /// Where Prometheus answers; none: releases that want to ask it are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<String>,
}

impl Default for BakeConfig {
    fn default() -> Self {
        Self {
            window: Span::from_secs(60),
            window_with_upstreams: Span::from_secs(5 * 60),
            prometheus: None,
        }
    }
}

impl BakeConfig {
    /// Nothing is watched unless a release says so.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            window: Span::from_millis(0),
            window_with_upstreams: Span::from_millis(0),
            prometheus: None,
        }
    }

    /// How a release with these routes is watched. Previews are not: whoever deploys one looks at it.
    ///
    /// # Errors
    /// When it wants to ask a Prometheus that there is not.
    pub fn plan(&self, site: &SiteId, routes: &Routes) -> Result<BakePlan, RolloutError> {
        let rules = routes.bake.clone();
        if !rules.promql.is_empty() && self.prometheus.is_none() {
            return Err(RolloutError::NoPrometheus { site: site.clone() });
        }
        let usual = if routes.forwards.is_empty() {
            self.window
        } else {
            self.window_with_upstreams
        };
        let window = match site.environment {
            Environment::Production => rules.window.unwrap_or(usual),
            Environment::Preview(_) => Span::from_millis(0),
        };
        Ok(BakePlan { window, rules })
    }
}

#[cfg(test)]
mod tests {
    use helix_routing::bake::{BakeRules, Number, PromqlCheck};
    use helix_routing::routes::{Forward, SiteConfig};

    use super::*;

    fn routes(bake: BakeRules) -> Routes {
        let config = SiteConfig {
            bake,
            ..SiteConfig::default()
        };
        Routes::compile(config, None, None).unwrap()
    }

    fn window(routes: &Routes, site: &str) -> Span {
        let plan = BakeConfig::default().plan(&site.parse().unwrap(), routes);
        plan.unwrap().window
    }

    #[test]
    fn what_a_release_says_of_its_window_counts_in_production() {
        let mut silent = routes(BakeRules::default());
        assert_eq!(window(&silent, "shop/production"), Span::from_secs(60));
        assert_eq!(window(&silent, "shop/preview/1"), Span::from_millis(0));
        let forward: Forward = serde_json::from_str(r#"{"path":"/*","upstream":"api"}"#).unwrap();
        silent.forwards.push(forward);
        assert_eq!(window(&silent, "shop/production"), Span::from_secs(300));
        let says = routes(BakeRules {
            window: Some(Span::from_secs(7)),
            ..BakeRules::default()
        });
        assert_eq!(window(&says, "shop/production"), Span::from_secs(7));
        assert_eq!(window(&says, "shop/preview/1"), Span::from_millis(0));
    }

    #[test]
    fn a_release_that_asks_prometheus_needs_one() {
        let check = PromqlCheck {
            name: "carts".to_owned(),
            query: "sum(carts)".to_owned(),
            max: Some(Number(1.0)),
            min: None,
            interval: Span::from_secs(15),
        };
        let asks = routes(BakeRules {
            promql: vec![check],
            ..BakeRules::default()
        });
        let site = "shop/production".parse().unwrap();
        let refused = BakeConfig::default().plan(&site, &asks);
        assert!(matches!(refused, Err(RolloutError::NoPrometheus { .. })));
        let config = BakeConfig {
            prometheus: Some("http://127.0.0.1:9090".to_owned()),
            ..BakeConfig::default()
        };
        assert!(config.plan(&site, &asks).is_ok());
    }
}
