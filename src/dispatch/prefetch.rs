//! How many jobs a worker may hold: the in-flight window
//! (`docs/decisions/2026-11-22-in-flight-window.md`).
//!
//! Sending the next job before the last one is answered hides two wake-ups, but a job behind a slow
//! one waits. So the window follows the worker's recent speed: `clamp(1 ms / recent busy time, 1,
//! 32)`, and 1 right after any slow job.

/// A job at least this long (milliseconds) is slow: nothing may wait behind the next one.
const SLOW_MS: f64 = 1.0;
/// Largest window.
const MAX: usize = 32;
/// Weight of the newest job in the moving average.
const NEWEST: f64 = 0.25;

/// The window of one worker.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    recent_ms: f64,
}

impl Default for Window {
    /// A new worker counts as slow until its first job shows that it is fast.
    fn default() -> Self {
        Self { recent_ms: SLOW_MS }
    }
}

impl Window {
    /// Notes how long a finished job kept the worker busy, in milliseconds.
    pub fn record(&mut self, busy_ms: f64) {
        self.recent_ms = if busy_ms >= SLOW_MS || !busy_ms.is_finite() {
            SLOW_MS
        } else {
            // After a slow job the average restarts with the first fast job, so that one fast job
            // is enough to open the window.
            let previous = if self.recent_ms >= SLOW_MS { busy_ms } else { self.recent_ms };
            previous + NEWEST * (busy_ms - previous)
        };
    }

    /// True if the worker's jobs end in less time than another thread needs to wake up.
    pub fn is_fully_open(&self) -> bool {
        self.size() == MAX
    }

    /// Jobs the worker may hold, the running one included.
    pub fn size(&self) -> usize {
        ((SLOW_MS / self.recent_ms.max(1e-3)) as usize).clamp(1, MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::{Window, MAX};

    #[test]
    fn a_new_worker_gets_one_job() {
        assert_eq!(Window::default().size(), 1);
    }

    #[test]
    fn fast_jobs_open_it_and_one_slow_job_closes_it() {
        let mut window = Window::default();
        window.record(0.01);
        assert_eq!(window.size(), MAX);
        window.record(1.0);
        assert_eq!(window.size(), 1);
        window.record(0.25);
        assert_eq!(window.size(), 4);
    }

    #[test]
    fn nonsense_times_close_it() {
        let mut window = Window::default();
        window.record(0.01);
        window.record(f64::NAN);
        assert_eq!(window.size(), 1);
    }
}
