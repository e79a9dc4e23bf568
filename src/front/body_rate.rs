//! When a request body takes too long: a pause above `--client_timeout`, or less than
//! `--min_body_rate` over a longer time.
//!
//! Pure decisions over times that the caller passes. Used in the front's event loop, by
//! `body_reader.rs` and `memory_budget.rs`.

use std::time::{Duration, Instant};

/// The grace is `--client_timeout`, but at least this long.
const LEAST_GRACE: Duration = Duration::from_secs(10);

/// The limits that a body has to keep.
#[derive(Debug, Clone, Copy)]
pub struct LeastRate {
    /// Bytes per second (`--min_body_rate`); zero means that only pauses are limited.
    pub bytes_per_second: usize,
    /// The longest pause (`--client_timeout`).
    pub pause: Duration,
}

impl LeastRate {
    /// How far a body may fall behind. Never less than the longest pause, because otherwise the two
    /// limits would contradict each other.
    pub fn grace(&self) -> Duration {
        self.pause.max(LEAST_GRACE)
    }
}

/// The reasons for refusing a body that is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// No bytes arrived for `--client_timeout`.
    Paused,
    /// It arrived at less than `--min_body_rate` until its grace was used up.
    Slow,
}

/// The progress of a body, measured against its limits.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    rate: LeastRate,
    /// When the last bytes arrived.
    last: Instant,
    /// When the grace will be used up if no more bytes arrive. Arriving bytes move this time, but
    /// never beyond a whole grace from now, so that a client that has sent a part fast cannot send
    /// the rest slowly for long.
    due: Instant,
}

impl Progress {
    /// The progress of a body whose first bytes are awaited from `now` on.
    pub fn begin(rate: LeastRate, now: Instant) -> Self {
        Self { rate, last: now, due: now + rate.grace() }
    }

    /// Notes that bytes have arrived.
    pub fn add(&mut self, now: Instant, bytes: usize) {
        let full = now + self.rate.grace();
        self.last = now;
        self.due = if self.rate.bytes_per_second == 0 {
            full
        } else {
            let earned = Duration::from_secs_f64(bytes as f64 / self.rate.bytes_per_second as f64);
            full.min(self.due + earned)
        };
    }

    /// The time by which the next bytes must arrive, and the reason for refusing the body if they
    /// do not.
    pub fn deadline(&self) -> (Instant, Late) {
        let paused = self.last + self.rate.pause;
        if self.due < paused {
            (self.due, Late::Slow)
        } else {
            (paused, Late::Paused)
        }
    }

    /// How far it has fallen behind the least rate.
    pub fn behind(&self, now: Instant) -> Duration {
        (now + self.rate.grace()).saturating_duration_since(self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Simulates a body of which `bytes` arrive after each pause. Returns when (in seconds from its
    /// start) and why it is refused; `None` if it continues for a day.
    fn refused(rate: usize, pause: u32, first: usize, every: Duration, bytes: usize) -> Option<(u64, Late)> {
        let start = Instant::now();
        let mut progress = Progress::begin(LeastRate { bytes_per_second: rate, pause: SECOND * pause }, start);
        progress.add(start, first);
        let mut now = start;
        while now < start + SECOND * 86_400 {
            let (deadline, late) = progress.deadline();
            now += every;
            if deadline < now {
                return Some(((deadline - start).as_secs(), late));
            }
            progress.add(now, bytes);
        }
        None
    }

    #[test]
    fn pauses_are_limited_and_so_is_the_rate() {
        // At the rate, and with the longest pauses that it allows.
        assert_eq!(refused(240, 60, 0, SECOND, 240), None);
        assert_eq!(refused(240, 60, 0, 59 * SECOND, 59 * 240), None);
        assert_eq!(refused(240, 60, 0, 61 * SECOND, 1 << 20), Some((60, Late::Paused)));
        // A byte a second, after nothing and after 100 MB at once.
        assert_eq!(refused(240, 60, 0, SECOND, 1), Some((60, Late::Slow)));
        assert_eq!(refused(240, 60, 100 << 20, SECOND, 1), Some((60, Late::Slow)));
        // Half the rate.
        assert_eq!(refused(240, 60, 0, SECOND, 120), Some((119, Late::Slow)));
        // Only pauses are limited.
        assert_eq!(refused(0, 60, 0, 59 * SECOND, 1), None);
        assert_eq!(refused(0, 60, 0, 61 * SECOND, 1), Some((60, Late::Paused)));
    }

    #[test]
    fn the_grace_is_never_shorter_than_ten_seconds() {
        assert_eq!(refused(240, 2, 0, SECOND, 1), Some((10, Late::Slow)));
        assert_eq!(refused(240, 2, 0, 3 * SECOND, 1000), Some((2, Late::Paused)));
    }

    #[test]
    fn a_body_is_behind_by_what_is_missing_at_its_least_rate() {
        let start = Instant::now();
        let rate = LeastRate { bytes_per_second: 100, pause: 60 * SECOND };
        let mut progress = Progress::begin(rate, start);
        assert_eq!(progress.behind(start), Duration::ZERO);
        assert_eq!(progress.behind(start + 3 * SECOND), 3 * SECOND);
        progress.add(start + 3 * SECOND, 100);
        assert_eq!(progress.behind(start + 3 * SECOND), 2 * SECOND);
        progress.add(start + 3 * SECOND, 1 << 30);
        assert_eq!(progress.behind(start + 3 * SECOND), Duration::ZERO);
    }
}
