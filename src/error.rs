//! What to do about an error: each room's errors have one of these kinds.

/// What the caller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Refuse this item and count it.
    Invalid,
    /// Retry with backoff.
    Transient,
    /// The disk is full: make room, then retry.
    Full,
    /// Quarantine it and go on.
    Corrupt,
    /// Stop acknowledging, exit, start again from disk.
    Broken,
    /// The configuration is wrong: exit 78.
    Config,
}

/// The text of `error` with its causes behind it, for whoever sees it last: a person. A cause that the text names already
/// is not repeated.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("the file can't be read")]
        Silent(#[source] std::io::Error),
        #[error("the file can't be read: {0}")]
        Telling(#[source] std::io::Error),
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = || std::io::Error::other("the card is gone");
        for error in [Outer::Silent(cause()), Outer::Telling(cause())] {
            assert_eq!(explain(&error), "the file can't be read: the card is gone");
        }
    }
}
