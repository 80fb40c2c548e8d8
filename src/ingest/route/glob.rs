//! Patterns for metrics: `*` stands for any characters, also none.

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// A pattern; every text is one.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Whether it fits the whole of `text`.
    pub fn fits(&self, text: &str) -> bool {
        let mut pieces = self.0.split('*');
        // `split` yields at least one piece: what stands before the first `*`.
        let Some(mut left) = pieces.next().and_then(|piece| text.strip_prefix(piece)) else { return false };
        let Some(last) = pieces.next_back() else { return left.is_empty() };
        for piece in pieces {
            // The earliest place leaves the most for the pieces that follow.
            let Some((_, after)) = left.split_once(piece) else { return false };
            left = after;
        }
        left.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let cases = [
            ("temp", "temp", true),
            ("temp", "temperature", false),
            ("temp*", "temperature", true),
            ("temp*", "temp", true),
            ("*temp", "a.temp", true),
            ("*temp", "a.temperature", false),
            ("update.*", "update.state", true),
            ("update.*", "update", false),
            ("a*b*c", "a.b.b.c", true),
            ("a*b*c", "a.c", false),
            ("a*ab", "ab", false),
            ("*", "", true),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Glob::new(pattern).fits(text), expected, "{pattern} and {text}");
        }
    }
}
