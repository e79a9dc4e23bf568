//! How many items each exporter has sent, and how many it has dropped, by reason.
//!
//! The exporter's thread and the front's event loop count. `/metrics` does not show the counters yet.

use std::sync::atomic::{AtomicU64, Ordering};

use super::answer::Reason;

/// The counters of one exporter.
#[derive(Debug, Default)]
pub struct Counts {
    sent: AtomicU64,
    dropped: [AtomicU64; Reason::ALL.len()],
}

impl Counts {
    /// Notes that a receiver has accepted items.
    pub fn note_sent(&self, items: usize) {
        self.sent.fetch_add(items as u64, Ordering::Relaxed);
    }

    /// Notes that items were dropped.
    pub fn note_dropped(&self, reason: Reason, items: usize) {
        self.dropped[reason as usize].fetch_add(items as u64, Ordering::Relaxed);
    }

    /// Items that a receiver has accepted.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Items that were dropped for this reason.
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    /// Items that were dropped for any reason.
    pub fn all_dropped(&self) -> u64 {
        Reason::ALL.iter().map(|reason| self.dropped(*reason)).sum()
    }
}
