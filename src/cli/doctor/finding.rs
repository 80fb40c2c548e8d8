//! What a look at one thing gave.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and something may be lost, worn or refused one day.
    Warning,
    /// It does not work, or the promise does not hold here.
    Fault,
}

impl Verdict {
    /// The word on the page and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// What a look at one thing gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: a fixed name, for programs.
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was seen.
    pub message: String,
    /// What to do; where nothing is wrong, nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, message: message.into(), advice: None }
    }

    /// Someone should look at it.
    pub fn warning(check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, message: message.into(), advice: Some(advice.into()) }
    }

    /// Someone must look at it.
    pub fn fault(check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fault, message: message.into(), advice: Some(advice.into()) }
    }
}
