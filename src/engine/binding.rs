//! What stands for the `?` of a statement.

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// The value of one `?`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Param {
    /// None.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number.
    Real(f64),
    /// A text.
    Text(String),
    /// A moment.
    Time(Timestamp),
}

/// The values of all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// In their order, as many as there are.
    Values(Vec<Param>),
    /// Not known: the statement is only described.
    Unknown,
}

impl Default for Binding {
    /// Of a statement without any.
    fn default() -> Self {
        Self::Values(Vec::new())
    }
}

impl Binding {
    /// About how long they are.
    pub fn bytes(&self) -> usize {
        let bytes = |param: &Param| if let Param::Text(text) = param { text.len() + size_of::<Param>() } else { size_of::<Param>() };
        match self {
            Self::Values(params) => params.iter().map(bytes).sum(),
            Self::Unknown => 0,
        }
    }
}
