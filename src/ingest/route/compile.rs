//! From the configuration's routes to rules, with every problem found on the way.

use std::sync::Arc;

use super::filter::Filter;
use super::glob::Glob;
use super::template::Template;
use super::{Action, Fault, Name, Problem, Reads, RouteError, Rule};
use crate::config::{RetainedPolicy, Route, TimeFormat};

/// Longest unit, in bytes.
pub(crate) const MAX_UNIT_BYTES: usize = 64;

/// The rules of `routes`, in their order.
///
/// # Errors
/// [`RouteError`] with every problem of every route.
pub fn compile(routes: &[Route]) -> Result<Vec<Rule>, RouteError> {
    let mut problems = Vec::new();
    let rules = routes.iter().zip(1..).filter_map(|(route, number)| Compiler { number, route, problems: &mut problems }.rule()).collect();
    if problems.is_empty() { Ok(rules) } else { Err(RouteError { problems }) }
}

/// Every problem of every route; none where [`compile`] succeeds.
pub fn check(routes: &[Route]) -> Vec<Problem> {
    compile(routes).err().map(|error| error.problems).unwrap_or_default()
}

struct Compiler<'a> {
    number: usize,
    route: &'a Route,
    problems: &'a mut Vec<Problem>,
}

impl Compiler<'_> {
    fn rule(mut self) -> Option<Rule> {
        let filter = Filter::parse(&self.route.topic);
        let filter = self.sound("topic", &self.route.topic, filter);
        self.refuse_contradictions();
        let action = if self.route.ignore {
            Action::Ignore
        } else if let Some(kind) = &self.route.as_kind {
            if kind != "record" {
                self.problem("as", quoted(kind), "only \"record\" is known; write that, or remove the key");
            }
            Action::Record(self.record_source(filter.as_ref()))
        } else {
            Action::Read(Box::new(self.reads(filter.as_ref())))
        };
        Some(Rule { number: self.number, filter: filter?, action })
    }

    fn reads(&mut self, filter: Option<&Filter>) -> Reads {
        let route = self.route;
        let sensor = self.name("sensor", route.sensor.as_deref(), filter);
        let metric = self.name("metric", route.metric.as_deref(), filter);
        if route.time_format.is_some() && route.time.is_none() {
            self.problem(
                "time_format",
                "set".to_owned(),
                "says how `time` is written, but `time` is missing; name the member with the time",
            );
        }
        if let Some(once) = route.once.as_deref().filter(|once| *once != "time") {
            self.problem("once", quoted(once), "only \"time\" is known; write that, or remove the key");
        }
        if let Some(unit) = route.unit.as_deref().filter(|unit| unit.is_empty() || unit.len() > MAX_UNIT_BYTES) {
            self.problem("unit", quoted(unit), "a unit has 1 to 64 bytes; shorten it, or remove the key");
        }
        self.numbers();
        Reads {
            each: self.each(),
            sensor,
            metric,
            value: self.path("value", route.value.as_deref()),
            time: self.path("time", route.time.as_deref()),
            time_format: route.time_format.unwrap_or(TimeFormat::Auto),
            quality: self.path("quality", route.quality.as_deref()),
            unit: route.unit.as_deref().map(Arc::from),
            keep: self.globs("keep", &route.keep),
            drop: self.globs("drop", &route.drop),
            states: route.states.clone(),
            scale: route.scale.iter().map(|(metric, factor)| (Glob::new(metric), *factor)).collect(),
            retained: route.retained.unwrap_or(RetainedPolicy::Skip),
            once: route.once.is_some(),
        }
    }

    /// Keys that can't stand beside `ignore`, or beside `as`.
    fn refuse_contradictions(&mut self) {
        let route = self.route;
        let reading = [
            ("each", route.each.is_some()),
            ("metric", route.metric.is_some()),
            ("value", route.value.is_some()),
            ("time", route.time.is_some()),
            ("time_format", route.time_format.is_some()),
            ("quality", route.quality.is_some()),
            ("unit", route.unit.is_some()),
            ("keep", !route.keep.is_empty()),
            ("drop", !route.drop.is_empty()),
            ("states", !route.states.is_empty()),
            ("scale", !route.scale.is_empty()),
            ("retained", route.retained.is_some()),
            ("once", route.once.is_some()),
        ];
        let naming = [("as", route.as_kind.is_some()), ("sensor", route.sensor.is_some())];
        let (with, against): (&str, Vec<&'static str>) = if route.ignore {
            ("ignore = true", naming.iter().chain(&reading).filter(|(_, set)| *set).map(|(key, _)| *key).collect())
        } else if route.as_kind.is_some() {
            ("as = \"record\"", reading.iter().filter(|(_, set)| *set).map(|(key, _)| *key).collect())
        } else {
            return;
        };
        for key in against {
            self.problem(key, "set".to_owned(), &format!("means nothing beside `{with}`; remove one of the two"));
        }
    }

    /// The source of a record: `sensor`, or the level `{sensor}`.
    fn record_source(&mut self, filter: Option<&Filter>) -> Option<Template> {
        match self.name("sensor", self.route.sensor.as_deref(), filter)? {
            Name::Levels(template) => Some(template),
            Name::Member(path) => {
                self.problem("sensor", quoted(&path), "a record is not looked into; make the name of levels, as in \"{site}\"");
                None
            }
        }
    }

    /// The key's name, or the level of the same name.
    fn name(&mut self, key: &'static str, value: Option<&str>, filter: Option<&Filter>) -> Option<Name> {
        let level = filter.is_some_and(|filter| filter.names().any(|name| name == key));
        match value {
            None => level.then(|| Name::Levels(Template::level(key))),
            Some(text) if text.contains(['{', '}']) => {
                let template = Template::parse(text, filter);
                self.sound(key, text, template).map(Name::Levels)
            }
            Some(text) if level => {
                let advice = format!("the topic names {{{key}}} already; remove the key, or write another name there");
                self.problem(key, quoted(text), &advice);
                None
            }
            Some(_) => self.path(key, value).map(Name::Member),
        }
    }

    fn path(&mut self, key: &'static str, value: Option<&str>) -> Option<Box<str>> {
        let path = value?;
        if path.is_empty() || path.contains("[*]") {
            self.problem(key, quoted(path), "is not a member; write a path as \"data.v\" (only `each` takes \"[*]\")");
            return None;
        }
        Some(path.into())
    }

    fn each(&mut self) -> Option<Box<str>> {
        let each = self.route.each.as_deref()?;
        match each.strip_suffix("[*]") {
            Some(path) if !path.contains("[*]") => Some(path.into()),
            _ => {
                self.problem("each", quoted(each), "is not an array's elements; write a path and \"[*]\", as in \"values[*]\"");
                None
            }
        }
    }

    fn globs(&mut self, key: &'static str, patterns: &[String]) -> Vec<Glob> {
        for pattern in patterns {
            if pattern.is_empty() {
                self.problem(key, quoted(pattern), "fits no metric; write a name or a pattern as \"temp*\"");
            }
            if key == "drop" && self.route.keep.contains(pattern) {
                self.problem(key, quoted(pattern), "is in `keep` too; remove it from one of the two");
            }
        }
        patterns.iter().map(|pattern| Glob::new(pattern)).collect()
    }

    fn numbers(&mut self) {
        for (word, number) in &self.route.states {
            if !number.is_finite() {
                self.problem("states", format!("{word} = {number}"), "is not a finite number; write one");
            }
        }
        for (metric, factor) in &self.route.scale {
            if !factor.is_finite() || *factor == 0.0 {
                self.problem("scale", format!("{metric} = {factor}"), "is not a factor; write a finite number other than 0");
            }
        }
    }

    fn sound<T>(&mut self, key: &'static str, value: &str, outcome: Result<T, Fault>) -> Option<T> {
        outcome.map_err(|Fault(advice)| self.problem(key, quoted(value), &advice)).ok()
    }

    fn problem(&mut self, key: &'static str, value: String, advice: &str) {
        self.problems.push(Problem { place: format!("route {}", self.number), key, value, advice: advice.to_owned() });
    }
}

fn quoted(value: &str) -> String {
    format!("\"{value}\"")
}
