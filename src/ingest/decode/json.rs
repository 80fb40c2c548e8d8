//! JSON as publishers send it: borrowed, bounded, and lenient where a good message would be lost.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Deepest nesting; what sensors send has three or four levels.
const MAX_DEPTH: usize = 32;

/// Most values in a payload: four for each of the [most readings](super::gather::MAX_READINGS) a message may bring.
const MAX_NODES: usize = 40_000 + 1_000;

/// Objects beyond this many members are searched for repeated keys by sorting, not by looking at all pairs.
const FEW_MEMBERS: usize = 24;

/// A member of an object.
pub(super) type Member<'a> = (Cow<'a, str>, Node<'a>);

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    /// In the order of the message; of repeated keys the last counts.
    Object(Vec<Member<'a>>),
}

impl<'a> Node<'a> {
    /// Its members; none where it is no object.
    pub fn members(&self) -> &[Member<'a>] {
        if let Self::Object(members) = self { members } else { &[] }
    }

    /// The member `key`.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.members().iter().find(|(known, _)| known == key).map(|(_, node)| node)
    }

    /// What is at a dotted path. A key with dots in it counts before the same path through objects, and a number is
    /// also the place in a list. The empty path is the value itself.
    pub fn at(&self, path: &str) -> Option<&Self> {
        if path.is_empty() {
            return Some(self);
        }
        if let Some(node) = self.step(path) {
            return Some(node);
        }
        path.match_indices('.').find_map(|(dot, _)| self.step(path.get(..dot)?)?.at(path.get(dot + 1..)?))
    }

    fn step(&self, key: &str) -> Option<&Self> {
        match self {
            Self::List(items) => items.get(key.parse::<usize>().ok()?),
            _ => self.get(key),
        }
    }

    /// Its text, where it is one.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Its number, where it is one; integers beyond 2^53 as the nearest float.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Int(whole) => Some(*whole as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// Whether it is neither list nor object.
    pub fn is_scalar(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Object(_))
    }
}

/// Reads a payload.
///
/// Where it is no JSON, it is read again with `NaN`, `Infinity` and numbers beyond a float as `null`, and then as JSON
/// lines, which become a list.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn parse(payload: &str) -> Result<Node<'_>, String> {
    let error = match strict(payload) {
        Ok(node) => return Ok(node),
        Err(error) => error,
    };
    if let Some(tame) = without_odd_numbers(payload)
        && let Ok(node) = strict(&tame)
    {
        return Ok(owned(node));
    }
    lines(payload).ok_or_else(|| format!("malformed JSON: {error}"))
}

fn strict(payload: &str) -> Result<Node<'_>, serde_json::Error> {
    let budget = Cell::new(MAX_NODES);
    let mut reader = serde_json::Deserializer::from_str(payload);
    let node = Seed { depth: 0, budget: &budget }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(node)
}

/// An object a line.
fn lines(payload: &str) -> Option<Node<'_>> {
    let mut lines = payload.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    let mut budget = MAX_NODES;
    let mut items = Vec::new();
    lines.peek().filter(|line| line.starts_with('{'))?;
    for line in lines {
        let item = strict(line).ok().filter(|node| matches!(node, Node::Object(_)))?;
        budget = budget.checked_sub(1 + item.members().len())?;
        items.push(item);
    }
    (items.len() > 1).then_some(Node::List(items))
}

/// The payload with `null` for each number that JSON or a float can't hold; `None` where there is none.
fn without_odd_numbers(payload: &str) -> Option<String> {
    let mut tame = String::with_capacity(payload.len());
    let mut left = payload;
    let mut odd = false;
    while let Some(next) = left.chars().next() {
        let end = match next {
            '"' => string_end(left),
            _ if in_word(next) => left.find(|c| !in_word(c)).unwrap_or(left.len()),
            _ => next.len_utf8(),
        };
        let (piece, after) = left.split_at_checked(end)?;
        if is_odd(piece) {
            tame.push_str("null");
            odd = true;
        } else {
            tame.push_str(piece);
        }
        left = after;
    }
    odd.then_some(tame)
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')
}

/// The length of the string at the beginning of `text`, with its quotes.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_odd(piece: &str) -> bool {
    let unsigned = piece.trim_start_matches(['+', '-']);
    ["nan", "inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word))
        || (unsigned.starts_with(|c: char| c.is_ascii_digit()) && piece.parse::<f64>().is_ok_and(f64::is_infinite))
}

fn owned(node: Node<'_>) -> Node<'static> {
    match node {
        Node::Null => Node::Null,
        Node::Bool(value) => Node::Bool(value),
        Node::Int(value) => Node::Int(value),
        Node::Float(value) => Node::Float(value),
        Node::Text(text) => Node::Text(text.into_owned().into()),
        Node::List(items) => Node::List(items.into_iter().map(owned).collect()),
        Node::Object(members) => Node::Object(members.into_iter().map(|(key, node)| (key.into_owned().into(), owned(node))).collect()),
    }
}

/// Reads one value at a depth, out of a budget of values.
#[derive(Clone, Copy)]
struct Seed<'l> {
    depth: usize,
    budget: &'l Cell<usize>,
}

impl Seed<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        let left = self.budget.get().checked_sub(1).ok_or_else(|| D::Error::custom(format_args!("more than {MAX_NODES} values")))?;
        self.budget.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Node::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(i64::try_from(value).map_or(Node::Float(value as f64), Node::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node<'de>, E> {
        Ok(Node::Float(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<'de>, A::Error> {
        let seed = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(seed)? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node<'de>, A::Error> {
        let seed = self.deeper()?;
        let mut members: Vec<Member<'de>> = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            members.push((key, map.next_value_seed(seed)?));
        }
        Ok(Node::Object(last_of_each(members)))
    }
}

/// Of members with the same key, the last.
fn last_of_each(mut members: Vec<Member<'_>>) -> Vec<Member<'_>> {
    if members.len() <= FEW_MEMBERS {
        let mut at = 0;
        while let Some((key, _)) = members.get(at) {
            if members.iter().skip(at + 1).any(|(later, _)| later == key) {
                members.remove(at);
            } else {
                at += 1;
            }
        }
        return members;
    }
    let mut seen = std::collections::HashSet::with_capacity(members.len());
    let mut kept: Vec<bool> = members.iter().rev().map(|(key, _)| seen.insert(key.as_ref())).collect();
    drop(seen);
    members.retain(|_| kept.pop().unwrap_or(true));
    members
}

/// Reads a key, borrowed where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_repeated_keys_counts_in_small_and_large_objects() {
        let small = parse(r#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(small.members().len(), 2);
        assert_eq!(small.get("a"), Some(&Node::Int(3)));
        let many: Vec<String> = (0..100).map(|i| format!("\"k{}\":{i}", i % 60)).collect();
        let text = format!("{{{}}}", many.join(","));
        let large = parse(&text).unwrap();
        assert_eq!(large.members().len(), 60);
        assert_eq!(large.get("k5"), Some(&Node::Int(65)));
        assert_eq!(large.get("k50"), Some(&Node::Int(50)));
    }

    #[test]
    fn odd_numbers_cost_only_themselves() {
        let node = parse(r#"{"a":nan,"b":-Infinity,"c":1e400,"d":"nan \" inf","e":1.5}"#).unwrap();
        for key in ["a", "b", "c"] {
            assert_eq!(node.get(key), Some(&Node::Null), "{key}");
        }
        assert_eq!(node.get("d").unwrap().text(), Some("nan \" inf"));
        assert_eq!(node.get("e"), Some(&Node::Float(1.5)));
    }

    #[test]
    fn lines_of_objects_are_a_list_and_other_lines_are_malformed() {
        assert!(matches!(parse("{\"a\":1}\n{\"a\":2}\n").unwrap(), Node::List(items) if items.len() == 2));
        assert!(parse("{\"a\":1}\n{\"a\":").is_err());
        assert!(parse("[1]\n[2]").is_err());
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&deep(MAX_DEPTH)).is_ok());
        assert!(parse(&deep(MAX_DEPTH + 1)).unwrap_err().contains("deeper"));
        assert!(parse(&deep(100_000)).unwrap_err().contains("deeper"));
        assert!(parse(&format!("[{}1]", "1,".repeat(MAX_NODES))).unwrap_err().contains("values"));
    }

    #[test]
    fn paths_go_through_objects_lists_and_keys_with_dots() {
        let node = parse(r#"{"a":{"b":[{"c":7}],"x.y":8},"a.z":9}"#).unwrap();
        for (path, expected) in [("a.b.0.c", 7), ("a.x.y", 8), ("a.z", 9)] {
            assert_eq!(node.at(path), Some(&Node::Int(expected)), "{path}");
        }
        assert_eq!(node.at("a.q"), None);
        assert_eq!(node.at(""), Some(&node));
    }

    #[test]
    fn numbers_are_exact() {
        assert_eq!(parse("0.48445310567793615").unwrap(), Node::Float(0.48445310567793615));
        assert_eq!(parse("18446744073709551615").unwrap(), Node::Float(u64::MAX as f64));
        assert_eq!(parse("9007199254740993").unwrap(), Node::Int(9_007_199_254_740_993));
    }
}
