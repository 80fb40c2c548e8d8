//! The WAL as SQLite leaves it, looked at before SQLite does: a damaged frame ends the recovery there without a word.
//!
//! Commits are fsynced one at a time, so a power cut can tear the last one alone. Commit frames of the same generation
//! beyond the first bad frame, but for one, were therefore durable (and acknowledged) and are lost. Format:
//! <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// The magic number without its last bit, which tells the byte order of the checksums.
const MAGIC: u32 = 0x377f_0682;

/// How many durable commits the WAL `bytes` holds that recovery will not see.
pub(super) fn lost_commits(bytes: &[u8]) -> u64 {
    let Some(header) = Header::read(bytes) else {
        return 0;
    };
    let mut sum = header.sum;
    let mut whole = true;
    let mut commits_beyond = 0_u64;
    for frame in bytes.get(HEADER_BYTES..).unwrap_or_default().chunks_exact(FRAME_HEADER_BYTES + header.page_bytes) {
        let (head, page) = frame.split_at(FRAME_HEADER_BYTES);
        let of_this_generation = head.get(8..16) == Some(&header.salts);
        let begin = head.get(..8).unwrap_or_default();
        sum = header.checksum(header.checksum(sum, begin), page);
        whole &= of_this_generation && head.get(16..24).and_then(pair) == Some(sum);
        let commits = head.get(4..8) != Some(&[0; 4]);
        if !whole && of_this_generation && commits {
            commits_beyond += 1;
        }
    }
    commits_beyond.saturating_sub(1)
}

struct Header {
    big_endian: bool,
    page_bytes: usize,
    salts: [u8; 8],
    sum: (u32, u32),
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        let (magic, _) = pair(header.get(..8)?)?;
        let (page_bytes, _) = pair(header.get(8..16)?)?;
        let salts = header.get(16..24)?.try_into().ok()?;
        let page_bytes = usize::try_from(page_bytes).ok()?;
        let read = Self { big_endian: magic & 1 == 1, page_bytes, salts, sum: pair(header.get(24..32)?)? };
        let good = magic & !1 == MAGIC && page_bytes > 0 && read.checksum((0, 0), header.get(..24)?) == read.sum;
        good.then_some(read)
    }

    /// Continues the running checksum over `bytes`, whose length is a multiple of 8.
    fn checksum(&self, sum: (u32, u32), bytes: &[u8]) -> (u32, u32) {
        let word = |word: &[u8; 4]| if self.big_endian { u32::from_be_bytes(*word) } else { u32::from_le_bytes(*word) };
        let (words, _) = bytes.as_chunks::<4>();
        words.as_chunks::<2>().0.iter().fold(sum, |(mut first, mut second), [one, other]| {
            first = first.wrapping_add(word(one)).wrapping_add(second);
            second = second.wrapping_add(word(other)).wrapping_add(first);
            (first, second)
        })
    }
}

/// Two big-endian words.
fn pair(bytes: &[u8]) -> Option<(u32, u32)> {
    let (first, second) = bytes.split_at_checked(4)?;
    Some((u32::from_be_bytes(first.try_into().ok()?), u32::from_be_bytes(second.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// The bytes of a WAL with `commits` commits of a page or two each.
    fn wal(commits: usize) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let connection = Connection::open(&path).unwrap();
        connection.query_row("pragma journal_mode = wal", [], |_| Ok(())).unwrap();
        connection.execute_batch("create table t (a blob)").unwrap();
        for _ in 1..commits {
            connection.execute("insert into t values (zeroblob(100))", []).unwrap();
        }
        std::fs::read(folder.path().join("a.db-wal")).unwrap()
    }

    fn frame_bytes() -> usize {
        FRAME_HEADER_BYTES + 4096
    }

    #[test]
    fn a_whole_wal_and_none_have_lost_nothing() {
        assert_eq!(lost_commits(&wal(20)), 0);
        assert_eq!(lost_commits(&[]), 0);
        assert_eq!(lost_commits(&[0xa5; 10_000]), 0);
    }

    #[test]
    fn a_wal_cut_off_or_torn_in_its_last_commit_has_lost_nothing_durable() {
        let whole = wal(20);
        for cut in [1, 100, 4096, 5000] {
            assert_eq!(lost_commits(&whole[..whole.len() - cut]), 0, "{cut} bytes less");
        }
        let mut torn = whole.clone();
        let last = torn.len() - 1;
        torn[last] ^= 1;
        assert_eq!(lost_commits(&torn), 0);
    }

    #[test]
    fn every_bit_that_falls_over_before_the_last_commit_is_noticed() {
        let whole = wal(20);
        let frames = (whole.len() - HEADER_BYTES) / frame_bytes();
        for frame in 0..frames - 1 {
            for byte in [0, 4, 9, 13, 17, 22, 24, 1000, 4119] {
                let mut damaged = whole.clone();
                damaged[HEADER_BYTES + frame * frame_bytes() + byte] ^= 0x10;
                let lost = lost_commits(&damaged);
                // In the salts of a commit's only frame, or of the frame before the last, the damage hides one commit.
                let least = (frames - frame).saturating_sub(4) as u64;
                assert!(lost >= least, "frame {frame} of {frames}, byte {byte}: {lost}");
            }
        }
    }

    #[test]
    fn frames_of_an_older_generation_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let connection = Connection::open(&path).unwrap();
        connection.query_row("pragma journal_mode = wal", [], |_| Ok(())).unwrap();
        connection.execute_batch("create table t (a blob)").unwrap();
        for _ in 0..10 {
            connection.execute("insert into t values (zeroblob(100))", []).unwrap();
        }
        connection.query_row("pragma wal_checkpoint(restart)", [], |_| Ok(())).unwrap();
        connection.execute("insert into t values (zeroblob(100))", []).unwrap();
        let bytes = std::fs::read(folder.path().join("a.db-wal")).unwrap();
        assert!(bytes.len() > 10 * frame_bytes());
        assert_eq!(lost_commits(&bytes), 0);
    }
}
