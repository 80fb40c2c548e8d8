//! The machine: memory, pages, the clock, and what the kernel can do for the engine's isolation.

use std::fs;

use super::finding::Finding;
use crate::cli::show::bytes;
use crate::clock::{Clock as _, SystemClock};

/// The daemon and its engine want about this much; below it something else may have to go.
const MIN_AVAILABLE: u64 = 128 << 20;

/// All that there is to say of the machine.
pub fn examine() -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let security = fs::read_to_string("/sys/kernel/security/lsm").ok();
    let mut findings = vec![memory(&read("/proc/meminfo"))];
    findings.extend(swap(&read("/proc/swaps")));
    findings.push(Finding::ok("page_size", bytes(rustix::param::page_size() as u64)));
    findings.push(clock());
    findings.extend([landlock(security.as_deref()), seccomp(&read("/proc/self/status"))]);
    findings.push(memory_cgroup(&read("/sys/fs/cgroup/cgroup.controllers"), &read("/proc/cgroups")));
    findings
}

fn memory(info: &str) -> Finding {
    let number = |key: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(key)).and_then(|rest| rest.split_whitespace().next());
        value.and_then(|kibibytes| kibibytes.parse::<u64>().ok()).map(|kibibytes| kibibytes << 10)
    };
    let Some((total, available)) = number("MemTotal:").zip(number("MemAvailable:")) else {
        return Finding::warning("memory", "/proc/meminfo does not tell", "look at it with \"free\"");
    };
    let message = format!("{} of {} are available", bytes(available), bytes(total));
    if available < MIN_AVAILABLE {
        let advice = "set a smaller engine.memory, or engine.enabled = false if nobody asks SQL here";
        return Finding::warning("memory", message, advice);
    }
    Finding::ok("memory", message)
}

/// Swap on a card wears it; in compressed memory it does not.
fn swap(swaps: &str) -> Option<Finding> {
    let places = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let on_disk: Vec<&str> = places.filter(|place| !place.contains("zram")).collect();
    let message = || format!("memory is swapped to {}, which wears a flash card", on_disk.join(", "));
    let advice = "swap to compressed memory (zram), or switch it off if this disk is a card";
    (!on_disk.is_empty()).then(|| Finding::warning("swap", message(), advice))
}

fn clock() -> Finding {
    if SystemClock.synchronised() {
        return Finding::ok("clock", "it is synchronised");
    }
    let message = "nothing says that it is synchronised; readings without a time of their own are marked so";
    Finding::warning("clock", message, "switch on systemd-timesyncd or chrony; a gateway without a network wants a clock chip")
}

fn landlock(modules: Option<&str>) -> Finding {
    let advice = "boot with \"lsm=landlock,...\" where the kernel has it; seccomp and the limit of memory hold without it";
    match modules {
        Some(modules) if modules.split(',').any(|module| module.trim() == "landlock") => Finding::ok("landlock", "the kernel has it"),
        Some(_) => Finding::warning("landlock", "the kernel does not have it: one layer around SQL is missing", advice),
        None => Finding::warning("landlock", "/sys/kernel/security/lsm does not tell", "see engine.isolation in the status"),
    }
}

fn seccomp(status: &str) -> Finding {
    match status.lines().any(|line| line.starts_with("Seccomp:")) {
        true => Finding::ok("seccomp", "the kernel has it"),
        false => Finding::warning("seccomp", "the kernel does not have it: one layer around SQL is missing", "use a distribution's kernel"),
    }
}

fn memory_cgroup(unified: &str, older: &str) -> Finding {
    let enabled = |line: &str| line.starts_with("memory") && line.ends_with('1');
    if unified.split_whitespace().any(|controller| controller == "memory") || older.lines().any(enabled) {
        return Finding::ok("memory_cgroup", "limits of a service's memory hold");
    }
    let message = "the kernel does not bound the memory of services; MemoryMax= says nothing here";
    Finding::warning("memory_cgroup", message, "on a Raspberry Pi add cgroup_enable=memory to cmdline.txt")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn memory_is_judged_by_what_is_available() {
        let verdict = |available: u64| memory(&format!("MemTotal: 440000 kB\nMemAvailable: {available} kB\n")).verdict;
        assert_eq!(verdict(300_000), Verdict::Ok);
        assert_eq!(verdict(100_000), Verdict::Warning);
        assert_eq!(memory("").verdict, Verdict::Warning);
    }

    #[test]
    fn swap_on_a_disk_is_told_and_swap_in_memory_is_not() {
        let table = |place: &str| format!("Filename Type Size Used Priority\n{place}");
        assert!(swap(&table("/dev/zram0 partition 1 0 100\n")).is_none());
        assert!(swap(&table("")).is_none());
        assert!(swap(&table("/var/swap file 1 0 -2\n")).unwrap().message.contains("/var/swap"));
    }

    #[test]
    fn what_the_kernel_lacks_is_told() {
        assert_eq!(landlock(Some("capability,landlock,yama\n")).verdict, Verdict::Ok);
        assert_eq!(landlock(Some("capability,yama")).verdict, Verdict::Warning);
        assert_eq!(landlock(None).verdict, Verdict::Warning);
        assert_eq!(seccomp("Name: x\nSeccomp:\t2\n").verdict, Verdict::Ok);
        assert_eq!(seccomp("Name: x\n").verdict, Verdict::Warning);
        assert_eq!(memory_cgroup("cpuset cpu io memory pids\n", "").verdict, Verdict::Ok);
        assert_eq!(memory_cgroup("", "#subsys_name hierarchy num_cgroups enabled\nmemory 4 71 1\n").verdict, Verdict::Ok);
        assert_eq!(memory_cgroup("cpuset cpu io pids\n", "memory 0 71 0\n").verdict, Verdict::Warning);
    }

    #[test]
    fn this_machine_gives_a_line_to_each() {
        let checks: Vec<&str> = examine().iter().map(|finding| finding.check).filter(|check| *check != "swap").collect();
        assert_eq!(checks, ["memory", "page_size", "clock", "landlock", "seccomp", "memory_cgroup"]);
    }
}
