//! How the front's process keeps and gives back the memory of large bodies.
//!
//! glibc maps every large block anew, and each of its pages costs a fault: for a body of 10 MB that is more time than
//! everything else the front does with it. So freed blocks are kept while large bodies come, and go back to the system
//! when none has come for a while. Called in the front's event loop. Elsewhere than in glibc nothing is changed.

#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// Blocks above this size are mapped each for itself and unmapped when they are freed; glibc allows no more.
#[cfg(all(target_os = "linux", target_env = "gnu", feature = "python"))]
const MAPPED_FROM: i32 = 32 << 20;
/// So much may stay free at the end of the heap while large bodies come.
#[cfg(all(target_os = "linux", target_env = "gnu", feature = "python"))]
const KEPT_FREE: i32 = 64 << 20;

/// Bodies that together take less than this are not worth a thought.
const LARGE: usize = 1 << 20;
/// Free memory goes back to the system so long after the last large body.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Fixes the thresholds. Only for a process that is all ours: a script may count on what its allocator does.
#[cfg(feature = "python")]
pub fn keep_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [(nix::libc::M_MMAP_THRESHOLD, MAPPED_FROM), (nix::libc::M_TRIM_THRESHOLD, KEPT_FREE)] {
        // SAFETY: sets a number. It fails only for values out of range, and then everything stays as it was.
        let _ = unsafe { nix::libc::mallopt(parameter, value) };
    }
}

/// Decides when kept memory goes back.
#[derive(Debug, Default)]
pub struct Keeper {
    last_large: Option<Instant>,
}

impl Keeper {
    /// To be called now and then with the largest number of bytes that bodies have taken since the last call. True when
    /// it has given memory back.
    pub fn note(&mut self, now: Instant, bytes: usize) -> bool {
        if bytes >= LARGE {
            self.last_large = Some(now);
        } else if self.last_large.is_some_and(|last| now.duration_since(last) > KEPT_FOR) {
            self.last_large = None;
            give_back();
            return true;
        }
        false
    }
}

fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: only touches memory that is free, under the allocator's own locks.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
