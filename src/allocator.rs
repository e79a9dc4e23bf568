//! How the front's process gives memory back to the system after large bodies.
//!
//! glibc learns to keep blocks of the sizes that were freed before, up to 32 MiB, so an idle front would hold what its
//! largest requests once took. Fixed thresholds end the learning. Called once, before the front serves.

#![allow(unsafe_code)]

/// From this size on a block is mapped for itself and unmapped when it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: i32 = 1 << 20;
/// So much may stay free at the end of the heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_FREE: i32 = 4 << 20;

/// Fixes the thresholds. Only for a process that is all ours: a script may count on what its allocator does.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [(nix::libc::M_MMAP_THRESHOLD, MAPPED_FROM), (nix::libc::M_TRIM_THRESHOLD, KEPT_FREE)] {
        // SAFETY: sets a number. It fails only for values out of range, and then everything stays as it was.
        let _ = unsafe { nix::libc::mallopt(parameter, value) };
    }
}
