//! Names made of a topic's levels: `{site}/{line}`.

use super::Fault;
use super::filter::{Captured, Filter};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Level(Box<str>),
}

/// A text with `{names}` of levels in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Just the level `name`.
    pub(super) fn level(name: &str) -> Self {
        Self(vec![Piece::Level(name.into())])
    }

    /// Reads a text; every name must be one of `filter`'s.
    pub(super) fn parse(text: &str, filter: Option<&Filter>) -> Result<Self, Fault> {
        let mut pieces = Vec::new();
        let mut left = text;
        while let Some((before, after)) = left.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| Fault::new("`{` is not closed; write a name as \"{site}\""))?;
            if let Some(filter) = filter
                && !filter.names().any(|known| known == name)
            {
                let known: Vec<String> = filter.names().map(|known| format!("{{{known}}}")).collect();
                let known = if known.is_empty() { "no level".to_owned() } else { known.join(", ") };
                return Err(Fault::new(format!("{{{name}}} is no level of the topic, which names {known}; name the level there")));
            }
            pieces.extend((!before.is_empty()).then(|| Piece::Text(before.into())));
            pieces.push(Piece::Level(name.into()));
            left = after;
        }
        if left.contains('}') {
            return Err(Fault::new("`}` closes nothing; write a name as \"{site}\""));
        }
        pieces.extend((!left.is_empty()).then(|| Piece::Text(left.into())));
        Ok(Self(pieces))
    }

    /// The text with the levels of a topic in it.
    pub fn fill(&self, captured: &Captured<'_, '_>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Level(name) => text.push_str(&captured.get(name).unwrap_or_default()),
            }
        }
        text
    }
}
