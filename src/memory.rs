//! What glibc does with freed memory: told once at start, so that a quiet daemon stays small.

/// Arenas of the allocator. Each thread that is busy at the same time as others takes one and keeps what it freed; two are
/// enough for a pump and a sealer.
const MAX_ARENAS: libc::c_int = 2;

/// What is larger gets pages of its own, which go back to the system when it is freed. Left to itself the allocator raises
/// this with the first column of a seal that is freed, keeps the next seal's among its own, and fragments.
const OWN_PAGES_BYTES: libc::c_int = 256 << 10;

/// Bounds what the allocator keeps; to be called before the first thread starts.
pub fn bound_arenas() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "mallopt has no safe wrapper")]
    // SAFETY: mallopt takes two integers and is called before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, MAX_ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES);
    }
}

/// Gives freed memory back to the system: after a seal, which takes much for a moment.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]
    // SAFETY: malloc_trim takes an integer and is safe to call from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
