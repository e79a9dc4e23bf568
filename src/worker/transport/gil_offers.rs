//! When a thread that finds one job after the other gives up the GIL in between.
//!
//! Python code gives it up by itself, but `run()` may be native code, and other threads of the script must run too. Used
//! by the threads that call the script.

use pyo3::prelude::*;

/// After this many jobs without a wait the thread gives up the GIL once.
const OFFERED_EVERY: u32 = 32;

/// Counts the jobs of one thread since it last gave up the GIL.
#[derive(Default)]
pub(in crate::worker) struct GilOffers {
    without_wait: u32,
}

impl GilOffers {
    /// Gives up the GIL for a moment, if it is time. Called before the thread looks for its next job.
    pub(in crate::worker) fn offer_if_due(&mut self, py: Python<'_>) {
        if self.without_wait >= OFFERED_EVERY {
            self.without_wait = 0;
            py.detach(|| ());
        }
    }

    /// The thread has found a job without a wait.
    pub(in crate::worker) fn note_job(&mut self) {
        self.without_wait += 1;
    }

    /// The thread waits, which gives up the GIL.
    pub(in crate::worker) fn note_wait(&mut self) {
        self.without_wait = 0;
    }
}
