//! The disk: what the data folder is on, how much is free, how far the flash is worn, what is in quarantine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::finding::Finding;
use super::mounts::Mount;
use crate::cli::show::bytes;
use crate::config::{Config, Retention};

/// Files that a disk should have room for beside the bytes: segments of a quarter of a year are fewer.
const MIN_FILES: u64 = 20_000;

/// A year of life left at the wear of the first nine.
const WORN: u64 = 9;

/// Past what its maker promised.
const WORN_OUT: u64 = 11;

const SECTOR_BYTES: u64 = 512;

/// All that there is to say of the disk.
pub fn examine(config: &Config) -> Vec<Finding> {
    let data_dir = &config.gateway.data_dir;
    let Some(folder) = nearest(data_dir) else {
        return vec![Finding::fault("file_system", format!("no part of {} is there", data_dir.display()), "set gateway.data_dir")];
    };
    let Some(mount) = Mount::of(&folder) else {
        return vec![Finding::warning("file_system", "/proc/self/mountinfo does not tell", "look with \"findmnt -T\" whether it is ext4")];
    };
    let mut findings = vec![file_system(&mount, data_dir), space(&folder, &config.retention)];
    findings.extend(flash(&mount));
    findings.push(quarantine(&data_dir.join("quarantine")));
    findings
}

/// `path` without links, or the part of it that is there.
fn nearest(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|folder| folder.canonicalize().ok())
}

fn file_system(mount: &Mount, data_dir: &Path) -> Finding {
    let Mount { kind, source, .. } = mount;
    let place = format!("{} is on {kind} ({source})", data_dir.display());
    let fault = |why: &str, advice: &str| Finding::fault("file_system", format!("{place}: {why}"), advice);
    if mount.has("ro") {
        return fault("it is read-only", "mount it writable; the kernel's log says whether a fault of the card made it so");
    }
    if mount.has("nobarrier") || mount.has("barrier=0") {
        return fault("without barriers a power cut takes what was acknowledged", "mount it without nobarrier and barrier=0");
    }
    match kind.as_str() {
        "ext3" | "ext4" if mount.has("data=writeback") => {
            let message = format!("{place} with data=writeback: after a power cut a file may hold what was there before it");
            Finding::warning("file_system", message, "mount it with data=ordered, which is the default")
        }
        "ext3" | "ext4" | "xfs" | "btrfs" | "f2fs" => Finding::ok("file_system", place),
        "vfat" | "exfat" | "msdos" | "fuseblk" | "ntfs" | "ntfs3" => {
            fault("a power cut can damage all of it", "set gateway.data_dir to a folder on ext4")
        }
        "tmpfs" | "ramfs" => fault("it is memory, and empty after a restart", "set gateway.data_dir to a folder on a disk"),
        "overlay" | "overlayfs" | "squashfs" => {
            let advice = "set gateway.data_dir to a folder on ext4; in a container: mount a volume there";
            fault("it may be gone with the container or the next boot", advice)
        }
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "fuse.sshfs" => {
            fault("the ledger's locks do not hold over a network", "set gateway.data_dir to a folder on a disk of this machine")
        }
        _ => Finding::warning("file_system", format!("{place}, which was never tried"), "prefer ext4"),
    }
}

fn space(folder: &Path, settings: &Retention) -> Finding {
    let Ok(system) = rustix::fs::statvfs(folder) else {
        return Finding::fault("space", "the disk can't be asked what is free", "look at it with \"df\"");
    };
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let size = system.f_blocks.saturating_mul(system.f_frsize);
    let message = format!("{} of {} are free; the cap is {}", bytes(free), bytes(size), bytes(settings.cap.0));
    let warning = |why: &str, advice: &str| Finding::warning("space", format!("{message}{why}"), advice);
    if free < settings.min_free.0 {
        let why = format!("; less than retention.min_free ({})", bytes(settings.min_free.0));
        return warning(&why, "make room: until then forebay evicts, and then does what retention.when_full says");
    }
    if settings.cap.0.saturating_add(settings.min_free.0) > size {
        let why = ", which with retention.min_free is more than the disk has";
        return warning(why, "set retention.cap to what the disk can hold, so that the cap decides and not the full disk");
    }
    // Some file systems count no files.
    if system.f_files > 0 && system.f_favail < MIN_FILES {
        return warning(&format!("; room for {} more files only", system.f_favail), "look for a folder of very many files, with \"df -i\"");
    }
    Finding::ok("space", message)
}

/// The device under `mount`; nothing is said of what is no device.
fn flash(mount: &Mount) -> Option<Finding> {
    let part = fs::canonicalize(format!("/sys/dev/block/{}", mount.device)).ok()?;
    let whole = if part.join("partition").exists() { part.parent()?.to_owned() } else { part };
    let read = |name: &str| fs::read_to_string(whole.join(name)).ok();
    let name = whole.file_name()?.to_string_lossy().into_owned();
    let sectors: u64 = read("stat")?.split_whitespace().nth(6)?.parse().ok()?;
    let written = format!("{name}: {} written since the machine started", bytes(sectors.saturating_mul(SECTOR_BYTES)));
    let wear = read("device/life_time").zip(read("device/pre_eol_info"));
    Some(match wear {
        Some((life_time, pre_eol_info)) => worn(&written, &life_time, &pre_eol_info),
        None => Finding::ok("flash", format!("{written}; it does not tell its wear")),
    })
}

/// Wear by JEDEC's eMMC standard: `life_time` is two numbers of tenths of a life, `pre_eol_info` how many spare blocks are gone.
fn worn(written: &str, life_time: &str, pre_eol_info: &str) -> Finding {
    let number = |text: &str| u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).unwrap_or_default();
    let tenths = life_time.split_whitespace().map(number).max().unwrap_or_default();
    let used = match tenths {
        0 => "its wear is not told".to_owned(),
        1..WORN_OUT => format!("{} to {} % of its life is used", (tenths - 1) * 10, tenths * 10),
        _ => "its life is used up".to_owned(),
    };
    let message = format!("{written}; {used}");
    let advice = "replace the card soon; what is delivered is safe upstream";
    match (number(pre_eol_info), tenths) {
        (3.., _) | (_, WORN_OUT..) => Finding::fault("flash", message, advice),
        (2, _) | (_, WORN..) => Finding::warning("flash", message, advice),
        _ => Finding::ok("flash", message),
    }
}

fn quarantine(folder: &Path) -> Finding {
    let names = fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>());
    match names {
        Ok(paths) => {
            let damaged = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).count();
            let place = folder.display();
            match (damaged, paths.len()) {
                (0, 0) => Finding::ok("quarantine", "nothing is in it"),
                (0, files) => Finding::ok("quarantine", format!("{files} files with samples of rejected messages are in {place}")),
                (damaged, _) => {
                    let message = format!("{damaged} damaged segments are in {place}");
                    Finding::warning("quarantine", message, "the losses name their readings; keep or remove the files, and test the card")
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::ok("quarantine", "nothing is in it"),
        Err(error) => Finding::warning("quarantine", format!("{}: {error}", folder.display()), "run it as root or as forebay's user"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;
    use crate::config::ByteSize;

    fn verdict_on(kind: &str, options: &str) -> Verdict {
        let line = format!("22 1 179:2 / / {options} - {kind} /dev/x rw");
        file_system(&Mount::parse(&line).unwrap(), Path::new("/var/lib/forebay")).verdict
    }

    #[test]
    fn file_systems_that_keep_the_promise_are_told_from_those_that_do_not() {
        for kind in ["ext4", "xfs", "btrfs", "f2fs"] {
            assert_eq!(verdict_on(kind, "rw,noatime"), Verdict::Ok, "{kind}");
        }
        for kind in ["vfat", "tmpfs", "overlay", "nfs4"] {
            assert_eq!(verdict_on(kind, "rw"), Verdict::Fault, "{kind}");
        }
        assert_eq!(verdict_on("ext4", "rw,data=writeback"), Verdict::Warning);
        assert_eq!(verdict_on("ext4", "rw,nobarrier"), Verdict::Fault);
        assert_eq!(verdict_on("ext4", "ro"), Verdict::Fault);
        assert_eq!(verdict_on("newfs", "rw"), Verdict::Warning);
    }

    #[test]
    fn wear_is_told_in_tenths_and_its_end_is_a_fault() {
        let verdict = |life_time: &str, pre_eol_info: &str| worn("mmcblk0", life_time, pre_eol_info).verdict;
        assert!(worn("mmcblk0", "0x02 0x01\n", "0x01\n").message.ends_with("10 to 20 % of its life is used"));
        assert_eq!(verdict("0x02 0x01", "0x01"), Verdict::Ok);
        assert_eq!(verdict("0x00 0x00", "0x00"), Verdict::Ok);
        assert_eq!(verdict("0x01 0x09", "0x01"), Verdict::Warning);
        assert_eq!(verdict("0x01 0x01", "0x02"), Verdict::Warning);
        assert_eq!(verdict("0x0b 0x01", "0x01"), Verdict::Fault);
        assert_eq!(verdict("0x01 0x01", "0x03"), Verdict::Fault);
    }

    #[test]
    fn a_disk_that_the_cap_does_not_fit_on_is_told() {
        let settings = |cap: u64, min_free: u64| Retention { cap: ByteSize(cap), min_free: ByteSize(min_free), ..Retention::default() };
        let verdict = |cap, min_free| space(Path::new("/"), &settings(cap, min_free)).verdict;
        assert_eq!(verdict(1 << 60, 0), Verdict::Warning);
        assert_eq!(verdict(1, 1 << 60), Verdict::Warning);
    }

    #[test]
    fn damaged_segments_in_quarantine_are_told_and_samples_are_not_held_against_anyone() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(quarantine(&folder.path().join("none")).verdict, Verdict::Ok);
        fs::write(folder.path().join("rejected.jsonl"), "").unwrap();
        assert_eq!(quarantine(folder.path()).verdict, Verdict::Ok);
        fs::write(folder.path().join("a.parquet"), "").unwrap();
        assert_eq!(quarantine(folder.path()).verdict, Verdict::Warning);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_looked_for_above() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        assert_eq!(nearest(&folder.path().join("a/b")), Some(root));
    }
}
