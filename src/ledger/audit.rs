//! The audit: the books recomputed from the rows they describe, as far as none were pruned. Tests run it after every step;
//! nothing at run time needs it.

use rusqlite::Connection;

use super::error::LedgerError;
use super::segments;
use super::state;
use crate::model::{Books, check_of};

/// One sentence for each contradiction; none when all is well.
pub(super) fn audit(connection: &Connection) -> Result<Vec<String>, LedgerError> {
    let state = state::load(connection)?;
    let count = |sql: &str, instance: bool| -> Result<u64, LedgerError> {
        let mut statement = connection.prepare(sql)?;
        let name = state.identity.instance.as_str();
        Ok(if instance { statement.query_row([name], |row| row.get(0)) } else { statement.query_row([], |row| row.get(0)) }?)
    };
    let cuts = |of: &str| count(&format!("select coalesce(sum(readings), 0) from cuts where instance = ?1 and state = '{of}'"), true);
    let lost =
        |reason: &str| count(&format!("select coalesce(sum(readings), 0) from losses where instance = ?1 and reason = '{reason}'"), true);
    let hot = count("select coalesce(sum(readings), 0) from journal", false)?;
    let here = count("select coalesce(sum(rows), 0) from segments where kind = 'readings' and state = 'present'", false)?;
    let (sealed, delivered) = (cuts("sealed")?, cuts("delivered")?);
    let (thinned, dropped, damaged) = (lost("thinned")?, lost("dropped")?, lost("damaged")?);
    let accepted = hot + sealed + delivered + thinned + dropped + damaged;
    let mut expected = Books { accepted, hot, sealed, delivered, thinned, dropped, damaged, kept: hot + here };
    let mut found = Vec::new();
    if count("select count(*) from cuts where instance = ?1", true)? < state.last_cut
        || count("select count(*) < coalesce(max(id), 0) from losses", false)? > 0
    {
        let books = state.books;
        let pairs = [(books.delivered, delivered), (books.thinned, thinned), (books.dropped, dropped), (books.damaged, damaged)];
        if pairs.iter().any(|(told, rows)| told < rows) {
            found.push(format!("the books say {books:?}, the rows that are left {expected:?}"));
        }
        let Books { accepted, delivered, thinned, dropped, damaged, .. } = books;
        expected = Books { accepted, delivered, thinned, dropped, damaged, ..expected };
    }
    if state.books != expected {
        found.push(format!("the books say {:?}, the rows {expected:?}", state.books));
    }
    if !state.books.balanced() {
        found.push(format!("the books do not balance: {:?}", state.books));
    }
    let sum = segments::paths(connection)?.iter().fold(0_u64, |sum, path| sum.wrapping_add(check_of(path)));
    if state.segments_check != sum {
        found.push(format!("the segments that are here add up to {sum}, and the check is {}", state.segments_check));
    }
    found.extend(gaps(connection, state.mark())?);
    let cuts_apart = "select count(*) from cuts c where state <> 'dropped' and readings <> \
        (select coalesce(sum(rows), 0) from segments \
        where cut = c.id and kind = 'readings' and first_cut = c.first_cut and state <> 'lost')";
    if count(cuts_apart, false)? != 0 {
        found.push("a cut and its segments count differently".to_owned());
    }
    let under_way = count("select count(*) from shipments where delivered is null", false)?;
    if under_way > 1 {
        found.push(format!("{under_way} shipments are under way"));
    }
    Ok(found)
}

/// The journal must follow the mark without a gap.
fn gaps(connection: &Connection, mark: u64) -> Result<Vec<String>, LedgerError> {
    let mut statement = connection.prepare("select first_seq, readings from journal order by first_seq")?;
    let mut rows = statement.query([])?;
    let (mut next, mut found) = (mark + 1, Vec::new());
    while let Some(row) = rows.next()? {
        let (first_seq, readings): (u64, u64) = (row.get(0)?, row.get(1)?);
        if first_seq != next {
            found.push(format!("a batch begins at {first_seq} where {next} is next"));
        }
        next = first_seq + readings;
    }
    Ok(found)
}
