//! When the front's process keeps the memory of request and reply bodies, and when it returns the
//! memory to the system.
//!
//! By default glibc maps every large block anew, and each of its pages costs a page fault. For a
//! body of 10 MB these take more time than all other work of the front. So the front keeps freed
//! blocks while bodies arrive, and returns them to the system when few have arrived for a while.
//!
//! With worker threads the script shares the process, so glibc's thresholds stay as they are. Free
//! memory is returned all the same, because glibc raises its trim threshold by itself when large
//! blocks are freed: each thread's heap could keep 64 MiB for ever.
//!
//! Called in the front's event loop. With other C libraries these functions do nothing.

#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// glibc's mmap threshold (`M_MMAP_THRESHOLD`): each block above this size has its own mapping,
/// which ends when the block is freed. This is the largest value that glibc allows.
#[cfg(all(target_os = "linux", target_env = "gnu", feature = "python"))]
const MAPPED_FROM: i32 = 32 << 20;
/// glibc's trim threshold (`M_TRIM_THRESHOLD`): up to this much free memory stays at the top of the
/// heap until [`Keeper`] has it returned to the system.
#[cfg(all(target_os = "linux", target_env = "gnu", feature = "python"))]
const KEPT_FREE: i32 = 64 << 20;

/// The front is at rest while the bodies of [`KEPT_FOR`] take less than this together. Returning so
/// little memory is not worth a system call.
const LITTLE: usize = 1 << 20;
/// How long the front must be at rest before it returns free memory to the system.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Sets the thresholds. Call this only in a process without the script, because a script may depend
/// on how its allocator behaves.
#[cfg(feature = "python")]
pub fn keep_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [(nix::libc::M_MMAP_THRESHOLD, MAPPED_FROM), (nix::libc::M_TRIM_THRESHOLD, KEPT_FREE)] {
        // SAFETY: `mallopt` sets a number. It fails only for values out of range, and then changes
        // nothing.
        let _ = unsafe { nix::libc::mallopt(parameter, value) };
    }
}

/// Decides when kept memory is returned to the system.
#[derive(Debug, Default)]
pub struct Keeper {
    /// Bytes since the front was last busy.
    recent: usize,
    /// When the front was last busy; `None` once its memory has been returned.
    busy_at: Option<Instant>,
}

impl Keeper {
    /// True if the caller should return free memory to the system now. `bytes` is the memory that
    /// bodies have taken since the last call. Small bodies count too, because many of them leave as
    /// much free memory as a large one.
    pub fn note(&mut self, now: Instant, bytes: usize) -> bool {
        self.recent = self.recent.saturating_add(bytes);
        if self.recent >= LITTLE {
            self.recent = 0;
            self.busy_at = Some(now);
        }
        self.busy_at.take_if(|busy_at| now.duration_since(*busy_at) > KEPT_FOR).is_some()
    }
}

/// Returns free memory to the system.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: only touches memory that is free, under the allocator's own locks.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times (in tenths of a second) at which memory is returned, if `bytes` arrive in each
    /// tenth.
    fn given_back(bytes: impl Fn(u64) -> usize) -> Vec<u64> {
        let (start, mut keeper) = (Instant::now(), Keeper::default());
        (0..100).filter(|tenth| keeper.note(start + Duration::from_millis(tenth * 100), bytes(*tenth))).collect()
    }

    #[test]
    fn memory_goes_back_a_second_after_the_last_body() {
        assert_eq!(given_back(|tenth| if tenth == 3 { 50 << 20 } else { 0 }), [14]);
        assert_eq!(given_back(|tenth| if tenth < 30 { LITTLE } else { 0 }), [40]);
    }

    #[test]
    fn small_bodies_add_up() {
        assert_eq!(given_back(|_| LITTLE / 2), [0; 0], "the front is never at rest");
        assert_eq!(given_back(|_| LITTLE / 32), [42, 74], "so few are no reason to keep memory");
    }

    #[test]
    fn a_front_that_had_next_to_nothing_is_left_alone() {
        assert_eq!(given_back(|_| LITTLE / 200), [0; 0]);
    }
}
