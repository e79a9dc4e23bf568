//! How the front's process keeps and gives back the memory of bodies, of requests and of replies.
//!
//! glibc maps every large block anew, and each of its pages costs a fault: for a body of 10 MB that is more time than
//! everything else the front does with it. So freed blocks are kept while bodies come, and go back to the system when few
//! have come for a while. Called in the front's event loop. Elsewhere than in glibc nothing is changed.

#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// Blocks above this size are mapped each for itself and unmapped when they are freed; glibc allows no more.
#[cfg(all(target_os = "linux", target_env = "gnu", feature = "python"))]
const MAPPED_FROM: i32 = 32 << 20;
/// glibc's trim threshold: up to this much free memory stays at the end of the heap until [`Keeper`] gives it back.
#[cfg(all(target_os = "linux", target_env = "gnu", feature = "python"))]
const KEPT_FREE: i32 = 64 << 20;

/// The front is at rest when the bodies of [`KEPT_FOR`] take less than this together. So much free memory is not worth a
/// system call.
const LITTLE: usize = 1 << 20;
/// How long the front must be at rest before free memory goes back to the system.
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
    /// Bytes since the front was last busy.
    recent: usize,
    /// When the front was last busy; `None` once its memory has gone back.
    busy_at: Option<Instant>,
}

impl Keeper {
    /// True if free memory is to go back to the system now. `bytes` is what bodies have taken since the last call. Small
    /// bodies add up: many of them leave as much free memory as a large one.
    pub fn note(&mut self, now: Instant, bytes: usize) -> bool {
        self.recent = self.recent.saturating_add(bytes);
        if self.recent >= LITTLE {
            self.recent = 0;
            self.busy_at = Some(now);
        }
        self.busy_at.take_if(|busy_at| now.duration_since(*busy_at) > KEPT_FOR).is_some()
    }
}

/// Gives free memory back to the system.
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

    /// When memory goes back, in tenths of a second, if so many bytes come in each.
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
