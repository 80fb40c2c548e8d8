//! Landlock: which files the child may open.

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope};
use landlock::{BitFlags, make_bitflags, path_beneath_rules};

/// The newest version that was tried; what an older kernel does not know is left out.
const NEWEST: ABI = ABI::V7;

/// DuckDB asks for the limits of its control group while it opens, and does not survive a refusal.
const ASKED_AT_OPEN: [&str; 2] = ["/proc/self/cgroup", "/sys/fs/cgroup"];

/// Takes from this thread, and from those that it starts, every file but those below the current folder, which it may read;
/// TCP, signals to other processes and the abstract sockets of others. Says whether the kernel does so.
///
/// # Errors
/// The kernel takes none of it.
pub fn restrict() -> Result<bool, RulesetError> {
    let read: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(["."], read))?
        .add_rules(path_beneath_rules(ASKED_AT_OPEN, read))?;
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}
