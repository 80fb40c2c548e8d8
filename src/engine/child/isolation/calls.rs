//! seccomp: which system calls the child may make, once DuckDB is open.
//!
//! A list of what it needs: to open segments for reading and read them, its threads, its memory, and to read and write the
//! sockets that it was given. All else is refused with EPERM: sockets, programs, other processes, files opened for writing
//! or created or removed, memory that can be run, and whatever a later kernel brings.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Whatever their arguments.
const ALLOWED: [c_long; 49] = [
    // Files.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_faccessat,
    libc::SYS_fstat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_statx,
    // Sockets that are there.
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_write,
    libc::SYS_writev,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads, and how they wait; the first is taken away by a filter of its own.
    libc::SYS_clone3,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_membarrier,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    // Signals that it gets.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // What it is and what time.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettimeofday,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Older calls of the same meaning, which only this processor has.
#[cfg(target_arch = "x86_64")]
const ALSO_ALLOWED: [c_long; 5] = [libc::SYS_access, libc::SYS_lstat, libc::SYS_poll, libc::SYS_readlink, libc::SYS_stat];
#[cfg(not(target_arch = "x86_64"))]
const ALSO_ALLOWED: [c_long; 0] = [];

/// What opens a file for anything but reading.
const WRITING: i32 = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;

/// Holds every thread of this process to the list.
///
/// # Errors
/// The kernel knows no such filters, or none for this processor.
pub fn restrict() -> Result<(), Error> {
    // Its arguments are out of sight, and whoever asks for it has another way where there is none.
    let absent = Rules::from([(libc::SYS_clone3, Vec::new())]);
    apply_filter_all_threads(&filter(absent, SeccompAction::Allow, refuse(libc::ENOSYS))?)?;
    apply_filter_all_threads(&filter(allowed()?, refuse(libc::EPERM), SeccompAction::Allow)?)
}

fn refuse(error: i32) -> SeccompAction {
    SeccompAction::Errno(error.cast_unsigned())
}

fn filter(rules: Rules, otherwise: SeccompAction, matching: SeccompAction) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, matching, TargetArch::try_from(ARCH)?)?.try_into()
}

fn allowed() -> Result<Rules, BackendError> {
    let mut rules: Rules = ALLOWED.into_iter().chain(ALSO_ALLOWED).map(|call| (call, Vec::new())).collect();
    let mut allow_if = |call: c_long, condition: Result<SeccompCondition, BackendError>| -> Result<(), BackendError> {
        rules.entry(call).or_default().push(SeccompRule::new(vec![condition?])?);
        Ok(())
    };
    allow_if(libc::SYS_openat, no_bit(2, WRITING))?;
    #[cfg(target_arch = "x86_64")]
    allow_if(libc::SYS_open, no_bit(1, WRITING))?;
    allow_if(libc::SYS_mmap, no_bit(2, libc::PROT_EXEC))?;
    allow_if(libc::SYS_mprotect, no_bit(2, libc::PROT_EXEC))?;
    allow_if(libc::SYS_clone, all_bits(0, libc::CLONE_THREAD))?;
    allow_if(libc::SYS_prctl, equal(0, libc::PR_SET_NAME))?;
    // An abort raises its signal in its own process.
    allow_if(libc::SYS_tgkill, equal(0, std::process::id().cast_signed()))?;
    // Limits can be read, not changed.
    allow_if(libc::SYS_prlimit64, no_pointer(2))?;
    // To the peer alone.
    allow_if(libc::SYS_sendto, no_pointer(4))?;
    for command in [libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL] {
        allow_if(libc::SYS_fcntl, equal(1, command))?;
    }
    Ok(rules)
}

/// The kernel looks at the lower half of a register for an `int`, and so must the filter.
fn int(argument: u8, comparison: SeccompCmpOp, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, comparison, value.cast_unsigned().into())
}

fn equal(argument: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    int(argument, SeccompCmpOp::Eq, value)
}

fn no_bit(argument: u8, bits: i32) -> Result<SeccompCondition, BackendError> {
    int(argument, SeccompCmpOp::MaskedEq(bits.cast_unsigned().into()), 0)
}

fn all_bits(argument: u8, bits: i32) -> Result<SeccompCondition, BackendError> {
    int(argument, SeccompCmpOp::MaskedEq(bits.cast_unsigned().into()), bits)
}

fn no_pointer(argument: u8) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
}
