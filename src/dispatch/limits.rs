//! The limits of a worker: how long a job may take, and after how many jobs or at how much memory
//! the worker is recycled.
//!
//! Numbers from the settings and pure decisions; asked by the front's event loop for every worker,
//! ten times a second.

use std::time::Duration;

use crate::settings::Settings;

/// `SCORING_TIMEOUT_MS` interrupts Python code in the worker itself. A call that is stuck in native
/// code cannot be interrupted. It gets this much more time before the front answers its client and
/// asks the supervisor to kill the worker. The supervisor uses the same time
/// (`supervise/workers.py`).
pub const INTERRUPT_GRACE: Duration = Duration::from_secs(2);

/// The settings that decide about workers; see `launch/settings_table.py`.
#[derive(Debug, Clone)]
pub struct Limits {
    pub(super) max_queue: usize,
    scoring_timeout: Duration,
    worker_timeout: Duration,
    max_requests: u64,
    pub(super) max_worker_rss: u64,
}

impl Limits {
    /// Takes the limits from the settings.
    pub fn of(settings: &Settings) -> Self {
        Self {
            max_queue: settings.max_queue,
            scoring_timeout: settings.scoring_timeout,
            worker_timeout: settings.worker_timeout,
            max_requests: settings.max_requests,
            max_worker_rss: settings.max_worker_rss,
        }
    }

    /// Limits of a simulated world; `limit` has no grace.
    #[cfg(test)]
    pub(super) fn for_simulation(max_queue: usize, limit: Duration, max_requests: u64) -> Self {
        Self { max_queue, scoring_timeout: Duration::ZERO, worker_timeout: limit, max_requests, max_worker_rss: 0 }
    }

    /// How many requests the next worker may serve: the setting plus or minus up to a tenth, so
    /// that not all workers are recycled at once.
    pub(super) fn requests_of_next(&self, worker_number: u64) -> u64 {
        let tenth = self.max_requests / 10;
        if tenth == 0 {
            return self.max_requests;
        }
        // Spread evenly, not at random, because workers that started one after the other must
        // always differ.
        self.max_requests - tenth + worker_number.wrapping_mul(7919) % (2 * tenth + 1)
    }

    /// The message for the client of a job that has run for `running`; `None` if that is within the
    /// limits.
    pub(super) fn overdue(&self, running: Duration, streaming: bool) -> Option<String> {
        let scoring = (!self.scoring_timeout.is_zero() && !streaming).then_some(self.scoring_timeout + INTERRUPT_GRACE);
        let worker = (!self.worker_timeout.is_zero()).then_some(self.worker_timeout);
        if scoring.is_some_and(|limit| running > limit) {
            return Some(format!("Scoring timeout after {} ms", self.scoring_timeout.as_millis()));
        }
        worker.filter(|limit| running > *limit).map(|limit| {
            format!("The request was not finished within {} seconds (WORKER_TIMEOUT).", limit.as_secs_f64())
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::dispatch) const LIMITS: Limits = Limits {
        max_queue: 2,
        scoring_timeout: Duration::from_millis(400),
        worker_timeout: Duration::from_secs(300),
        max_requests: 1000,
        max_worker_rss: 0,
    };

    #[test]
    fn limits_are_told_by_their_name_and_the_earlier_one_counts() {
        let message = "Scoring timeout after 400 ms".to_owned();
        assert_eq!(LIMITS.overdue(Duration::from_millis(2300), false), None);
        assert_eq!(LIMITS.overdue(Duration::from_millis(2500), false), Some(message));
        assert_eq!(LIMITS.overdue(Duration::from_millis(2500), true), None);
        let text = LIMITS.overdue(Duration::from_secs(301), true).expect("too long for a part of a stream");
        assert!(text.contains("300 seconds") && text.contains("WORKER_TIMEOUT"), "{text}");
        let unlimited = Limits { scoring_timeout: Duration::ZERO, worker_timeout: Duration::ZERO, ..LIMITS };
        assert_eq!(unlimited.overdue(Duration::from_secs(1 << 40), false), None);
    }

    #[test]
    fn workers_are_recycled_at_different_counts_within_a_tenth() {
        let counts: Vec<u64> = (0..8).map(|number| LIMITS.requests_of_next(number)).collect();
        assert!(counts.iter().all(|count| (900..=1100).contains(count)), "{counts:?}");
        assert!(counts.windows(2).all(|pair| pair[0] != pair[1]), "{counts:?}");
        assert_eq!(Limits { max_requests: 3, ..LIMITS }.requests_of_next(5), 3);
        assert_eq!(Limits { max_requests: 0, ..LIMITS }.requests_of_next(5), 0);
    }
}
