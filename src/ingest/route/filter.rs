//! Topic filters: MQTT's `+` and `#`, and `{names}` for levels.

use super::Fault;

/// Longest topic MQTT can carry.
const MAX_FILTER_BYTES: usize = 65_535;

/// What one level of a filter asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Is(Box<str>),
    OneOf(Vec<Box<str>>),
    Begins(Box<str>),
    Any,
    Named(Box<str>),
}

impl Level {
    fn admits(&self, level: &str) -> bool {
        match self {
            Self::Is(text) => **text == *level,
            Self::OneOf(texts) => texts.iter().any(|text| **text == *level),
            Self::Begins(text) => level.starts_with(&**text),
            Self::Any | Self::Named(_) => true,
        }
    }

    fn is_wildcard(&self) -> bool {
        matches!(self, Self::Any | Self::Named(_))
    }
}

/// The levels a filter leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// `#`: none or more.
    Any,
    /// `**`, in built-in rules: one or more.
    Some,
}

/// A compiled topic filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    head: Vec<Level>,
    rest: Option<Rest>,
    tail: Vec<Level>,
}

/// What a filter found in a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Captured<'f, 't> {
    names: Vec<(&'f str, &'t str)>,
    /// The levels under `#` or `**`.
    pub rest: Option<&'t str>,
    /// The level after `**`, where the filter goes on.
    pub after_rest: Option<&'t str>,
    /// The last level of the topic, where the filter asks for it without naming it.
    pub last: Option<&'t str>,
}

impl<'t> Captured<'_, 't> {
    /// The level named `name`; levels of the same name are joined by `/` in built-in rules.
    pub fn get(&self, name: &str) -> Option<std::borrow::Cow<'t, str>> {
        let mut found = self.names.iter().filter(|(known, _)| *known == name).map(|(_, level)| *level);
        let first = found.next()?;
        Some(found.fold(std::borrow::Cow::Borrowed(first), |joined, level| format!("{joined}/{level}").into()))
    }
}

impl Filter {
    /// Reads a filter of a `[[route]]`.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        if text.is_empty() {
            return Err(Fault::new("a topic filter is needed; `#` matches every topic"));
        }
        if text.len() > MAX_FILTER_BYTES || text.contains('\0') {
            return Err(Fault::new("no topic is longer than 65535 bytes or holds a NUL; shorten the filter"));
        }
        let mut filter = Self { head: Vec::new(), rest: None, tail: Vec::new() };
        for level in text.split('/') {
            if filter.rest.is_some() {
                return Err(Fault::new("`#` stands for all that follows; put it last"));
            }
            match level {
                "#" => filter.rest = Some(Rest::Any),
                "+" => filter.head.push(Level::Any),
                _ if level.contains(['+', '#']) => {
                    return Err(Fault::new(format!(
                        "`+` and `#` stand for whole levels, but one is part of \"{level}\"; separate it with `/`"
                    )));
                }
                _ if level.contains(['{', '}']) => filter.head.push(Level::Named(filter.new_name(level)?.into())),
                _ => filter.head.push(Level::Is(level.into())),
            }
        }
        Ok(filter)
    }

    fn new_name<'l>(&self, level: &'l str) -> Result<&'l str, Fault> {
        let name = level.strip_prefix('{').and_then(|level| level.strip_suffix('}')).unwrap_or_default();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let advice = "a name stands for a whole level and is made of letters, digits and `_`, as in \"{sensor}\"";
            return Err(Fault::new(format!("\"{level}\" is not a named level; {advice}")));
        }
        if self.names().any(|known| known == name) {
            return Err(Fault::new(format!("{{{name}}} names two levels; give each its own name")));
        }
        Ok(name)
    }

    /// Reads a filter of the built-in rules: `**` is one or more levels, `a|b` is either, `$*` begins with `$`, and the
    /// levels of several `{sensor}` are joined.
    pub fn built_in(text: &str) -> Self {
        let mut filter = Self { head: Vec::new(), rest: None, tail: Vec::new() };
        for level in text.split('/') {
            let asks = match level {
                "**" => {
                    filter.rest = Some(Rest::Some);
                    continue;
                }
                "+" => Level::Any,
                _ => match (level.strip_prefix('{').and_then(|level| level.strip_suffix('}')), level.strip_suffix('*')) {
                    (Some(name), _) => Level::Named(name.into()),
                    (None, Some(beginning)) => Level::Begins(beginning.into()),
                    (None, None) if level.contains('|') => Level::OneOf(level.split('|').map(Into::into).collect()),
                    (None, None) => Level::Is(level.into()),
                },
            };
            if filter.rest.is_some() { filter.tail.push(asks) } else { filter.head.push(asks) }
        }
        filter
    }

    /// The names of its levels.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.head.iter().chain(&self.tail).filter_map(|level| match level {
            Level::Named(name) => Some(&**name),
            _ => None,
        })
    }

    /// What it finds in `topic`, if it matches. As in MQTT, a wildcard does not match a first level that begins with `$`.
    pub fn find<'f, 't>(&'f self, topic: &'t str) -> Option<Captured<'f, 't>> {
        if topic.starts_with('$') && self.head.first().is_none_or(Level::is_wildcard) {
            return None;
        }
        let mut found = Captured::default();
        let mut left = Some(topic);
        for level in &self.head {
            found.note(level, take_first(&mut left)?)?;
        }
        for level in self.tail.iter().rev() {
            let text = take_last(&mut left)?;
            found.note(level, text)?;
            found.after_rest = Some(text);
        }
        match (self.rest, left) {
            (None, None) | (Some(Rest::Any), _) | (Some(Rest::Some), Some(_)) => found.rest = left,
            _ => return None,
        }
        let last_is_open = self.rest.is_none() && !matches!(self.head.last(), Some(Level::Named(_)));
        found.last = if last_is_open { topic.rsplit('/').next() } else { None };
        Some(found)
    }
}

impl<'f, 't> Captured<'f, 't> {
    fn note(&mut self, level: &'f Level, text: &'t str) -> Option<()> {
        if let Level::Named(name) = level {
            self.names.push((name, text));
        }
        level.admits(text).then_some(())
    }
}

/// Cuts off the first level; `None` is a topic without levels, which differs from one empty level.
fn take_first<'t>(left: &mut Option<&'t str>) -> Option<&'t str> {
    let text = (*left)?;
    let (level, after) = text.split_once('/').map_or((text, None), |(level, after)| (level, Some(after)));
    *left = after;
    Some(level)
}

fn take_last<'t>(left: &mut Option<&'t str>) -> Option<&'t str> {
    let text = (*left)?;
    let (before, level) = text.rsplit_once('/').map_or((None, text), |(before, level)| (Some(before), level));
    *left = before;
    Some(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_mqtt_says() {
        let cases = [
            ("#", "a", true),
            ("#", "/", true),
            ("#", "$SYS/broker", false),
            ("+/broker", "$SYS/broker", false),
            ("$SYS/#", "$SYS/broker", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a/b/c/d", false),
            ("+/+", "/x", true),
            ("+", "/x", false),
            ("a b/ü", "a b/ü", true),
        ];
        for (filter, topic, expected) in cases {
            assert_eq!(Filter::parse(filter).unwrap().find(topic).is_some(), expected, "{filter} and {topic}");
        }
    }

    #[test]
    fn named_levels_and_the_rest_are_captured() {
        let filter = Filter::parse("farm/{site}/{sensor}/#").unwrap();
        let found = filter.find("farm/north//a/b").unwrap();
        assert_eq!(found.get("site").as_deref(), Some("north"));
        assert_eq!(found.get("sensor").as_deref(), Some(""));
        assert_eq!(found.get("other"), None);
        assert_eq!(found.rest, Some("a/b"));
        assert_eq!(filter.find("farm/north/s1").unwrap().rest, None);
    }

    #[test]
    fn built_in_filters_take_the_middle_as_the_rest() {
        let filter = Filter::built_in("tele/**/SENSOR|STATE");
        let found = filter.find("tele/a/b/STATE").unwrap();
        assert_eq!((found.rest, found.after_rest), (Some("a/b"), Some("STATE")));
        assert!(filter.find("tele/SENSOR").is_none());
        assert!(Filter::built_in("**/$*").find("homie/x/$nodes").is_some());
        assert_eq!(Filter::built_in("N/{sensor}/{sensor}/**").find("N/a/b/c").unwrap().get("sensor").as_deref(), Some("a/b"));
    }

    #[test]
    fn what_is_no_filter_is_refused_with_advice() {
        for wrong in ["", "a/#/b", "a+/b", "a/b#", "a/{}", "a/{x", "a/x}", "a/{x y}", "a/pre{x}", "{x}/{x}", "a\0b"] {
            assert!(Filter::parse(wrong).is_err(), "{wrong}");
        }
    }
}
