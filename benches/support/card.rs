//! A flash card for a benchmark: an ext4 file system of its own in a loop-mounted image. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const IMAGE_BYTES: u64 = 512 << 20;
const SECTOR_BYTES: u64 = 512;

/// An ext4 file system on a device of its own.
pub struct Card {
    image: PathBuf,
    device: String,
    /// Where it is mounted.
    pub mount: PathBuf,
}

impl Card {
    /// One more, `name` below `place`.
    pub fn insert(place: &Path, name: &str) -> Self {
        let (image, mount) = (place.join(format!("{name}.img")), place.join(name));
        fs::File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).unwrap();
        // Complete at once, so that the kernel does not go on writing it behind our back.
        run("mkfs.ext4", &["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", text(&image)]);
        let device = run("losetup", &["--find", "--show", text(&image)]);
        fs::create_dir(&mount).unwrap();
        run("mount", &[&device, text(&mount)]);
        Self { image, device, mount }
    }

    /// Bytes written to the device so far, with all that waits.
    pub fn written(&self) -> u64 {
        run("sync", &["-f", text(&self.mount)]);
        let counters = fs::read_to_string(format!("/sys/block/{}/stat", self.device.trim_start_matches("/dev/"))).unwrap();
        counters.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap() * SECTOR_BYTES
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).status();
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
        let _ = fs::remove_file(&self.image);
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a command that must succeed, and gives what it prints.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
