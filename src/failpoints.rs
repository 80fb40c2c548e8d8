//! Places at which tests stop the program, in builds with the feature `failpoints` alone.
//!
//! `FAILPOINTS=name=action` is read by the crate `fail` (sleep, pause, panic ...). `FOREBAY_KILL_AT=name` or `name:n` ends
//! the process with SIGKILL at the first or n-th pass, as a power cut would.

/// Arms what the environment asks for; does nothing in an ordinary build.
pub fn arm() {
    #[cfg(feature = "failpoints")]
    armed::arm();
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::atomic::{AtomicU64, Ordering};

    pub fn arm() {
        // Points stay armed for the life of the process.
        std::mem::forget(fail::FailScenario::setup());
        let Ok(wish) = std::env::var("FOREBAY_KILL_AT") else { return };
        let (name, nth) = wish.split_once(':').map_or((wish.as_str(), 1), |(name, nth)| (name, nth.parse().unwrap_or(1)));
        let passes = AtomicU64::new(0);
        let armed = fail::cfg_callback(name, move || {
            if passes.fetch_add(1, Ordering::SeqCst) + 1 == nth {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
        });
        if let Err(error) = armed {
            tracing::error!(error, name, "the failpoint could not be armed");
        }
    }
}
