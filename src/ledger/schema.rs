//! The schema: its versions, and how a file comes to the newest.

use rusqlite::{Connection, TransactionBehavior};

use super::error::LedgerError;

/// One script a version; the file's `user_version` says how many it has seen. A script that was released never changes.
const MIGRATIONS: [&str; 7] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
    include_str!("migrations/0006.sql"),
    include_str!("migrations/0007.sql"),
];

/// The version written here.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

/// The version of an open file; 0 without a schema.
pub(super) fn version_of(connection: &Connection) -> Result<u32, LedgerError> {
    Ok(connection.query_row("pragma user_version", [], |row| row.get(0))?)
}

/// Brings the file to the newest version, one transaction a step.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), LedgerError> {
    let found = version_of(connection)?;
    // A table that others refer to is replaced by a new one of its name; only outside of a transaction can this be said.
    let checked: bool = connection.pragma_query_value(None, "foreign_keys", |row| row.get(0))?;
    connection.pragma_update(None, "foreign_keys", false)?;
    for (version, script) in (1_u32..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(script)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
        tracing::info!(version, "the ledger's schema is new");
    }
    Ok(connection.pragma_update(None, "foreign_keys", checked)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_the_golden_file() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        assert_eq!(version_of(&connection).unwrap(), VERSION);
        let mut statement = connection.prepare("select sql from sqlite_schema where sql is not null order by rowid").unwrap();
        let rows: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let found = format!("-- user_version {VERSION}\n{};\n", rows.join(";\n"));
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ledger-schema.sql");
        if std::env::var_os("FOREBAY_GOLDEN").is_some() {
            std::fs::write(golden, &found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(golden).unwrap(), "run with FOREBAY_GOLDEN=1 to accept a new schema");
    }

    #[test]
    fn migrating_again_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        assert_eq!(version_of(&connection).unwrap(), VERSION);
    }
}
