//! Which file system a path is on, as `/proc/self/mountinfo` tells it (proc_pid_mountinfo(5)).

use std::path::{Path, PathBuf};

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Major and minor number of its device, as `179:2`.
    pub device: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Its type, as `ext4`.
    pub kind: String,
    /// Its device or whatever stands for it.
    pub source: String,
    options: Vec<String>,
}

impl Mount {
    /// Of the folder `path`, which has no links in it.
    pub fn of(path: &Path) -> Option<Self> {
        Self::find(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, path)
    }

    /// The deepest mount above `path`; of several at one place the last hides the others.
    fn find(mounts: &str, path: &Path) -> Option<Self> {
        let above = mounts.lines().filter_map(Self::parse).filter(|mount| path.starts_with(&mount.point));
        above.max_by_key(|mount| mount.point.components().count())
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let (place, system) = line.split_once(" - ")?;
        let [_, _, device, _, point, options, ..] = place.split(' ').collect::<Vec<_>>()[..] else { return None };
        let [kind, source, super_options] = system.split(' ').collect::<Vec<_>>()[..] else { return None };
        Some(Self {
            device: device.to_owned(),
            point: PathBuf::from(unescape(point)),
            kind: kind.to_owned(),
            source: unescape(source),
            options: options.split(',').chain(super_options.split(',')).map(str::to_owned).collect(),
        })
    }

    /// Whether it is mounted with `option`.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|found| found == option)
    }
}

/// Blanks are written as `\040`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw,errors=remount-ro
23 22 0:5 / /dev rw - devtmpfs udev rw
40 22 8:1 / /mnt/a\\040stick rw shared:9 master:2 - vfat /dev/sda1 rw,utf8
41 22 8:2 / /var/lib rw - ext4 /dev/sda2 rw,data=writeback
42 41 0:40 / /var/lib rw - tmpfs tmpfs rw,size=1024k
garbage
";

    fn kind_of(path: &str) -> String {
        Mount::find(MOUNTS, Path::new(path)).unwrap().kind
    }

    #[test]
    fn the_deepest_and_of_those_the_last_mount_counts() {
        assert_eq!(kind_of("/srv/x"), "ext4");
        assert_eq!(kind_of("/mnt/a stick/lake"), "vfat");
        assert_eq!(kind_of("/var/lib/forebay"), "tmpfs");
        assert_eq!(kind_of("/var/library"), "ext4", "a name that begins the same is another folder");
        assert_eq!(Mount::find("", Path::new("/")), None);
    }

    #[test]
    fn options_of_the_mount_and_of_the_file_system_both_count() {
        let root = Mount::find(MOUNTS, Path::new("/")).unwrap();
        assert!(root.has("noatime") && root.has("errors=remount-ro") && !root.has("ro"));
        assert_eq!((root.device.as_str(), root.source.as_str()), ("179:2", "/dev/mmcblk0p2"));
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(Mount::of(Path::new("/")).is_some());
    }
}
