//! What the machine says: memory, bytes written, room on disk, damaged files.

use std::path::Path;

/// Most entries of `quarantine/` that are looked at.
const MAX_ENTRIES: usize = 200_000;

/// Bytes free to us on the file system of `data_dir`; 0 if it can't be asked.
pub fn disk_free_bytes(data_dir: &Path) -> u64 {
    rustix::fs::statvfs(data_dir).map_or(0, |system| system.f_bavail.saturating_mul(system.f_frsize))
}

/// Segments in `quarantine/` of `data_dir`: what failed its checksum and waits for a person.
pub fn damaged_files(data_dir: &Path) -> usize {
    let is_segment = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "parquet");
    let entries = std::fs::read_dir(data_dir.join("quarantine"));
    entries.map_or(0, |entries| entries.take(MAX_ENTRIES).flatten().filter(is_segment).count())
}

/// Resident memory of this process; 0 where /proc is missing.
pub fn rss_bytes() -> u64 {
    proc_number("/proc/self/status", "VmRSS:").saturating_mul(1024)
}

/// Bytes that this process caused to be written since it began; 0 where /proc is missing.
pub fn written_bytes() -> u64 {
    proc_number("/proc/self/io", "write_bytes:")
}

fn proc_number(file: &str, key: &str) -> u64 {
    std::fs::read_to_string(file).map_or(0, |text| number_after(&text, key))
}

/// The first number on the line that begins with `key`.
fn number_after(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)).and_then(|rest| rest.split_whitespace().next());
    value.and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_line_of_their_key_alone() {
        let text = "read_bytes: 7\nwrite_bytes: 4096\ncancelled_write_bytes: 12\n";
        assert_eq!(number_after(text, "write_bytes:"), 4096);
        assert_eq!(number_after(text, "no such key:"), 0);
        assert!(rss_bytes() > 1 << 20, "a test process takes more than a mebibyte");
    }

    #[test]
    fn of_what_is_in_quarantine_segments_alone_count_as_damaged() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(damaged_files(folder.path()), 0);
        std::fs::create_dir(folder.path().join("quarantine")).unwrap();
        for name in ["a.parquet", "a.why.txt", "samples.jsonl"] {
            std::fs::write(folder.path().join("quarantine").join(name), "").unwrap();
        }
        assert_eq!(damaged_files(folder.path()), 1);
        assert!(disk_free_bytes(folder.path()) > 0);
    }
}
