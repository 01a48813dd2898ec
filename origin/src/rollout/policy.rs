//! In which stages a release goes out: what is typed, else what the release says, else origin's config.

use helix_routing::id::{Environment, RegionId, SiteId};
use helix_routing::rollout::{
    Approvals, RolloutPlan, RolloutPolicy, UsualApprovals, UsualOrder, WaveOrder,
};

use super::RolloutError;

/// What a deployment is told about its way out.
#[derive(Clone, Debug, Default)]
pub struct WayOut {
    /// What was typed with the deployment.
    pub typed: RolloutPolicy,
    /// What the release says.
    pub release: RolloutPolicy,
    /// What origin's config says.
    pub config: RolloutPolicy,
    /// The regions in the order of the config: the first is the canary.
    pub order: Vec<RegionId>,
}

impl WayOut {
    /// Every region at once.
    #[must_use]
    pub fn together() -> Self {
        Self {
            config: together(),
            ..Self::default()
        }
    }

    /// The stages for these regions.
    ///
    /// Previews and the first release of a site have no visitors to lose: they go everywhere at once, unless something
    /// else is typed. A first release keeps to its hours, and waits where its first stage is to be approved.
    ///
    /// # Errors
    /// When a policy names what there is not, also where it does not count this time.
    pub fn plan(
        &self,
        site: &SiteId,
        regions: &[RegionId],
        is_first: bool,
    ) -> Result<RolloutPlan, RolloutError> {
        let wrong = |problem: String| RolloutError::Policy { problem };
        self.typed
            .check()
            .map_err(|problem| wrong(problem.to_string()))?;
        let said = self.release.clone().or(&self.config).or(&usual());
        let plan = |policy: &RolloutPolicy| {
            RolloutPlan::of(policy, regions).map_err(|problem| wrong(problem.to_string()))
        };
        let usually = plan(&said)?;
        let said = match site.environment {
            Environment::Preview(_) => together(),
            Environment::Production if is_first => {
                let waits = usually.stages.first().is_some_and(|stage| stage.approve);
                RolloutPolicy {
                    approve: waits.then_some(Approvals::Usual(UsualApprovals::All)),
                    hours: said.hours,
                    ..together()
                }
            }
            Environment::Production => said,
        };
        plan(&self.typed.clone().or(&said))
    }

    /// The regions in the order of the config; those that it does not name come last.
    #[must_use]
    pub fn ordered(&self, regions: Vec<RegionId>) -> Vec<RegionId> {
        let named = self.order.iter().filter(|region| regions.contains(region));
        let others = regions.iter().filter(|region| !self.order.contains(region));
        named.chain(others).cloned().collect()
    }
}

fn usual() -> RolloutPolicy {
    RolloutPolicy {
        order: Some(WaveOrder::Usual(UsualOrder::Canary)),
        ..RolloutPolicy::default()
    }
}

fn together() -> RolloutPolicy {
    RolloutPolicy {
        order: Some(WaveOrder::Usual(UsualOrder::Together)),
        ..RolloutPolicy::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way_out(typed: &str, release: &str, config: &str) -> WayOut {
        let policy = |json| serde_json::from_str(json).unwrap();
        WayOut {
            typed: policy(typed),
            release: policy(release),
            config: policy(config),
            order: ["iad", "fra"].map(|name| name.parse().unwrap()).to_vec(),
        }
    }

    /// As in `iad fra+gru!`.
    fn drawn(way_out: &WayOut, site: &str, is_first: bool) -> String {
        let regions = ["fra", "gru", "iad"].map(|name| name.parse().unwrap());
        let regions = way_out.ordered(regions.to_vec());
        let plan = way_out.plan(&site.parse().unwrap(), &regions, is_first);
        let stages = plan.unwrap().stages.into_iter().map(|stage| {
            let names: Vec<_> = stage.regions.iter().map(RegionId::as_str).collect();
            let approve = if stage.approve { "!" } else { "" };
            format!("{}{approve}", names.join("+"))
        });
        stages.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn production_goes_to_the_first_region_of_the_config_first() {
        let silent = way_out("{}", "{}", "{}");
        assert_eq!(drawn(&silent, "shop/production", false), "iad fra+gru");
        assert_eq!(drawn(&silent, "shop/production", true), "iad+fra+gru");
        assert_eq!(drawn(&silent, "shop/preview/1", false), "iad+fra+gru");
        let together = way_out("{}", "{}", r#"{"order":"together"}"#);
        assert_eq!(drawn(&together, "shop/production", false), "iad+fra+gru");
        let says = way_out(
            "{}",
            r#"{"order":[["gru"]],"approve":"all"}"#,
            r#"{"order":"together"}"#,
        );
        assert_eq!(drawn(&says, "shop/production", false), "gru! iad+fra!");
        assert_eq!(drawn(&says, "shop/production", true), "iad+fra+gru!");
        assert_eq!(drawn(&says, "shop/preview/1", false), "iad+fra+gru");
    }

    #[test]
    fn what_is_typed_counts_everywhere() {
        let typed = way_out(r#"{"order":[["fra"]]}"#, r#"{"order":"together"}"#, "{}");
        for (site, is_first) in [("shop/production", true), ("shop/preview/1", false)] {
            assert_eq!(drawn(&typed, site, is_first), "fra iad+gru");
        }
    }

    #[test]
    fn what_there_is_not_is_refused_also_where_it_does_not_count() {
        let regions = ["fra".parse().unwrap()];
        let preview = "shop/preview/1".parse().unwrap();
        for (typed, release) in [
            ("{}", r#"{"order":[["syd"]]}"#),
            ("{}", r#"{"approve":[2]}"#),
            (r#"{"approve":[9]}"#, "{}"),
            (r#"{"soak":"999h"}"#, "{}"),
        ] {
            let refused = way_out(typed, release, "{}").plan(&preview, &regions, true);
            assert!(
                matches!(refused, Err(RolloutError::Policy { .. })),
                "{typed} {release}"
            );
        }
    }
}
