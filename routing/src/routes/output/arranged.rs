//! Routes with their patterns compiled, by phase.
//!
//! Pure. Made once for a release, when an edge prepares it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::condition::ReadyCondition;
use super::index::Index;
use super::matcher::{Matcher, literals};
use super::template::Template;
use super::{
    Condition, Destination, Operation, Output, OutputRoute, PHASES, Phase, Step, Then, TransformKey,
};

/// The routes of a release, arranged for looking them up.
#[derive(Debug)]
pub(in super::super) struct Arranged {
    phases: [Index; PHASES.len()],
    pub(super) routes: Vec<Ready>,
    wildcards: BTreeMap<String, String>,
}

/// A route that can be run.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) line: usize,
    /// None when its pattern cannot be compiled after all, which origin had seen; no request passes it.
    pub(super) matcher: Option<Matcher>,
    /// Whether what groups find is used.
    pub(super) uses_groups: bool,
    pub(super) methods: Vec<String>,
    pub(super) has: Vec<ReadyCondition>,
    pub(super) missing: Vec<ReadyCondition>,
    pub(super) steps: Vec<ReadyStep>,
    pub(super) status: Option<u16>,
    pub(super) to: Option<ReadyDestination>,
    pub(super) then: Then,
}

#[derive(Debug)]
pub(super) enum ReadyStep {
    Reset,
    Locale {
        redirect: BTreeMap<String, String>,
        cookie: Option<String>,
    },
    Field(String, Template),
    Transform(Operation, TransformKey, Vec<Template>),
}

#[derive(Debug)]
pub(super) enum ReadyDestination {
    Path(Template),
    Away(Template),
    Forward(usize, Template),
}

impl Arranged {
    pub(in super::super) fn new(output: &Output) -> Self {
        let of = |phase: Phase| {
            let routes = output.routes.iter().enumerate();
            let routes = routes.filter(|(_, route)| route.phase == phase);
            Index::new(routes.map(|(at, route)| (at, literals(&route.src))))
        };
        Self {
            phases: PHASES.map(of),
            routes: output.routes.iter().map(Ready::new).collect(),
            wildcards: output.wildcards.clone(),
        }
    }

    pub(super) fn phase(&self, phase: Phase) -> &Index {
        // The order of `PHASES` is that of the enum.
        &self.phases[phase as usize]
    }

    /// What `$wildcard` stands for on `host`.
    pub(super) fn wildcard(&self, host: &str) -> &str {
        self.wildcards.get(host).map_or("", String::as_str)
    }

    pub(super) fn has_wildcards(&self) -> bool {
        !self.wildcards.is_empty()
    }
}

impl Ready {
    pub(super) fn new(route: &OutputRoute) -> Self {
        let conditions = |all: &[Condition]| -> Option<Vec<ReadyCondition>> {
            all.iter()
                .map(|one| ReadyCondition::new(one).ok())
                .collect()
        };
        let (has, missing) = (conditions(&route.has), conditions(&route.missing));
        let compiled = Matcher::new(&route.src, route.case_sensitive).ok();
        let matcher = compiled.filter(|_| has.is_some() && missing.is_some());
        let names = matcher.as_ref().map_or(&[][..], Matcher::names);
        let template = |text: &String| Template::new(text, names);
        let mut status = None;
        let mut steps = Vec::with_capacity(route.steps.len());
        for step in &route.steps {
            steps.push(match step {
                Step::Reset => ReadyStep::Reset,
                Step::Locale { redirect, cookie } => ReadyStep::Locale {
                    redirect: redirect.clone(),
                    cookie: cookie.clone(),
                },
                Step::Field(name, value) => ReadyStep::Field(name.clone(), template(value)),
                Step::Transform(transform) => ReadyStep::Transform(
                    transform.operation,
                    transform.key.clone(),
                    transform.values.iter().map(template).collect(),
                ),
                Step::Status(number) => {
                    status = Some(*number);
                    continue;
                }
            });
        }
        let to = route.to.as_ref().map(|to| match to {
            Destination::Path(text) => ReadyDestination::Path(template(text)),
            Destination::Away(text) => ReadyDestination::Away(template(text)),
            Destination::Forward(at, text) => ReadyDestination::Forward(*at, template(text)),
        });
        let uses_groups = steps.iter().any(ReadyStep::uses_groups)
            || to.as_ref().is_some_and(|to| to.template().uses_groups());
        Self {
            line: route.line,
            uses_groups,
            methods: route.methods.clone(),
            has: has.unwrap_or_default(),
            missing: missing.unwrap_or_default(),
            steps,
            status,
            to,
            then: route.then,
            matcher,
        }
    }
}

impl ReadyStep {
    fn uses_groups(&self) -> bool {
        match self {
            Self::Reset | Self::Locale { .. } => false,
            Self::Field(_, value) => value.uses_groups(),
            Self::Transform(_, _, values) => values.iter().any(Template::uses_groups),
        }
    }
}

impl ReadyDestination {
    const fn template(&self) -> &Template {
        match self {
            Self::Path(template) | Self::Away(template) | Self::Forward(_, template) => template,
        }
    }
}
