//! The user's SQL as text: nested, so that it can only read, and its errors told in the user's own lines.

/// Put before the user's text; it takes one line.
const BEFORE: &str = "SELECT * FROM (\n";

/// Levels of brackets. DuckDB takes as many, but its parser needs seven kilobytes for each that it then refuses.
pub const MAX_DEPTH: usize = 1000;

/// The statement that runs: the user's as a subquery, where neither COPY nor a change of data is allowed.
///
/// A row limit goes outside, so that it holds whatever the user wrote.
pub fn nest(sql: &str, max_rows: Option<u64>) -> String {
    let statement = without_terminator(sql);
    let limit = max_rows.map_or_else(String::new, |rows| format!(" LIMIT {rows}"));
    format!("{BEFORE}{statement}\n) AS q{limit}")
}

/// DuckDB's message about the nested statement in terms of the user's text: `LINE 2:` is their first line.
pub fn message_for_user(message: &str) -> String {
    let Some(at) = message.rfind("\nLINE ").map(|at| at + "\nLINE ".len()) else { return message.to_owned() };
    let (before, rest) = message.split_at(at);
    let Some((number, after)) = rest.split_once(": ") else { return message.to_owned() };
    match number.parse::<u64>() {
        Ok(line) if line > 1 => {
            let shown = (line - 1).to_string();
            // The mark below the line stays under its character when the number gets shorter.
            let pad = " ".repeat(number.len() - shown.len());
            format!("{before}{shown}: {pad}{after}")
        }
        _ => message.to_owned(),
    }
}

/// Line and column, both from 1, of the byte at `position`; columns count characters.
pub fn place(sql: &str, position: usize) -> (usize, usize) {
    let mut end = position.min(sql.len());
    while !sql.is_char_boundary(end) {
        end -= 1;
    }
    let before = sql.get(..end).unwrap_or(sql);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count();
    (before.matches('\n').count() + 1, column + 1)
}

/// Where `sql` opens more brackets, one in the other, than [`MAX_DEPTH`]: the line and column of the first that is too many.
pub fn too_deep(sql: &str) -> Option<(usize, usize)> {
    let bytes = sql.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(place(sql, at));
        }
        at += token_bytes(bytes, at);
    }
    None
}

/// The statement behind a leading EXPLAIN, every character at its place.
pub fn explained(sql: &str) -> Option<String> {
    const WORD: &str = "explain";
    let bytes = sql.as_bytes();
    let mut at = 0;
    while bytes.get(at).is_some_and(|byte| byte.is_ascii_whitespace()) || is_comment(bytes, at) {
        at += token_bytes(bytes, at);
    }
    let (before, word, rest) = (sql.get(..at)?, sql.get(at..at + WORD.len())?, sql.get(at + WORD.len()..)?);
    let ends = !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    (word.eq_ignore_ascii_case(WORD) && ends).then(|| [before, &" ".repeat(WORD.len()), rest].concat())
}

/// `sql` up to the last character that is neither space, comment nor semicolon.
fn without_terminator(sql: &str) -> &str {
    let bytes = sql.as_bytes();
    let (mut at, mut end) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        let next = at + token_bytes(bytes, at);
        if !is_comment(bytes, at) && *byte != b';' && !byte.is_ascii_whitespace() {
            end = next;
        }
        at = next;
    }
    sql.get(..end).unwrap_or(sql)
}

fn is_comment(bytes: &[u8], at: usize) -> bool {
    matches!((bytes.get(at), bytes.get(at + 1)), (Some(b'-'), Some(b'-')) | (Some(b'/'), Some(b'*')))
}

/// Bytes of the quoted text or comment that begins at `at`, or 1.
fn token_bytes(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest {
        [b'-', b'-', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => comment_bytes(rest),
        [quote @ (b'\'' | b'"' | b'`'), ..] => quoted_bytes(rest, *quote, *quote == b'\'' && escapes(bytes, at)),
        [b'$', ..] => dollar_quoted_bytes(rest),
        _ => 1,
    }
}

/// Block comments nest.
fn comment_bytes(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 {
        match (rest.get(at), rest.get(at + 1)) {
            (Some(b'/'), Some(b'*')) => (at, depth) = (at + 2, depth + 1),
            (Some(b'*'), Some(b'/')) => (at, depth) = (at + 2, depth - 1),
            (Some(_), _) => at += 1,
            (None, _) => return rest.len(),
        }
    }
    at
}

/// A doubled quote is seen as the end of one text and the begin of the next, which comes to the same.
fn quoted_bytes(rest: &[u8], quote: u8, backslash: bool) -> usize {
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        at += if backslash && *byte == b'\\' { 2 } else { 1 };
        if *byte == quote {
            return at;
        }
    }
    rest.len()
}

/// Whether the quote at `at` follows an `E` that stands alone, and so knows backslashes.
fn escapes(bytes: &[u8], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|place| bytes.get(place));
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
    before(1).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'e')) && !before(2).is_some_and(word)
}

/// `$tag$ ... $tag$`; a `$` of another kind (a parameter) is a byte of its own.
fn dollar_quoted_bytes(rest: &[u8]) -> usize {
    let tag = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
    let name = rest.iter().skip(1).take_while(|byte| tag(byte)).count();
    let mark = match (rest.get(1), rest.get(..name + 2)) {
        (Some(first), Some(mark)) if !first.is_ascii_digit() && mark.ends_with(b"$") => mark,
        _ => return 1,
    };
    let inside = rest.get(mark.len()..).unwrap_or_default();
    inside.windows(mark.len()).position(|window| window == mark).map_or(rest.len(), |at| at + 2 * mark.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_statement_is_left_out_and_nothing_else() {
        for (sql, kept) in [
            ("select 1", "select 1"),
            ("select 1;", "select 1"),
            ("select 1 ; ; \n", "select 1"),
            ("select 1; -- done;", "select 1"),
            ("select 1 /* a; /* b */ c */ ; -- x", "select 1"),
            ("-- first\nselect 1", "-- first\nselect 1"),
            ("select ';'", "select ';'"),
            ("select '-- no comment';", "select '-- no comment'"),
            ("select 'it''s; so'", "select 'it''s; so'"),
            ("select e'a\\'; --' ;", "select e'a\\'; --'"),
            ("select fee'a\\';", "select fee'a\\'"),
            ("select \"a;\" ; ", "select \"a;\""),
            ("select `a;` ; ", "select `a;`"),
            ("select $$a; -- $$ ;", "select $$a; -- $$"),
            ("select $x$ $$ ; $x$;", "select $x$ $$ ; $x$"),
            ("select $1;", "select $1"),
            ("select 'ü';", "select 'ü'"),
            ("", ""),
            (" ; ", ""),
            ("select 1; select 2;", "select 1; select 2"),
        ] {
            assert_eq!(without_terminator(sql), kept, "{sql}");
        }
    }

    #[test]
    fn no_text_upsets_it() {
        for sql in ["'", "\"", "$", "$a", "$a$", "$$", "/*", "/* /*", "--", "e'\\", "/", "-", "ü$ü$", "explainü", "üexplain"] {
            assert!(nest(sql, None).starts_with(BEFORE), "{sql}");
            assert_eq!((explained(sql), too_deep(sql)), (None, None), "{sql}");
        }
    }

    #[test]
    fn what_is_to_be_explained_keeps_its_places() {
        for (sql, rest) in [
            ("explain select 1", Some("        select 1")),
            ("-- why\n EXPLAIN(select 1)", Some("-- why\n        (select 1)")),
            ("/* explain */ Explain analyze select 1", Some("/* explain */         analyze select 1")),
            ("explain", Some("       ")),
            ("explained", None),
            ("select explain", None),
            ("'explain'", None),
        ] {
            assert_eq!(explained(sql).as_deref(), rest, "{sql}");
        }
    }

    #[test]
    fn brackets_are_counted_where_they_are_brackets() {
        let deep = |levels: usize| format!("select\n{}1{}", "(".repeat(levels), ")".repeat(levels));
        assert_eq!(too_deep(&deep(MAX_DEPTH)), None);
        assert_eq!(too_deep(&deep(MAX_DEPTH + 1)), Some((2, MAX_DEPTH + 1)));
        assert_eq!(too_deep(&format!("select '{}' -- {}", "(".repeat(2000), "[".repeat(2000))), None);
        assert_eq!(too_deep(&"(1), ".repeat(2000)), None);
    }

    #[test]
    fn a_comment_at_the_end_does_not_swallow_what_follows() {
        assert_eq!(nest("select 1 -- one", Some(5)), "SELECT * FROM (\nselect 1\n) AS q LIMIT 5");
    }

    #[test]
    fn errors_name_the_users_line_and_the_mark_stays_below_its_character() {
        let nested = "Binder Error: no column\n\nLINE 2: select x\n               ^";
        assert_eq!(message_for_user(nested), "Binder Error: no column\n\nLINE 1: select x\n               ^");
        let tenth = "oh\n\nLINE 10: select x\n                ^";
        assert_eq!(message_for_user(tenth), "oh\n\nLINE 9:  select x\n                ^");
        for message in ["no place", "\nLINE one: x", "a\nLINE 1: x"] {
            assert_eq!(message_for_user(message), message);
        }
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        assert_eq!(place("select 1", 7), (1, 8));
        assert_eq!(place("a\nöb", 4), (2, 2));
        assert_eq!(place("a\nöb", 3), (2, 1), "inside a character");
        assert_eq!(place("a", 99), (1, 2));
    }
}
