//! How many jobs a worker claims together: grows up to the maximum for as long as the time for each
//! row of the input does not get worse.
//!
//! Pure decisions from measured times. Used on the worker's thread by `executor/batching.rs`.

use std::time::Duration;

/// The smallest batch.
const LEAST: usize = 2;
/// Full batches of one size that are measured before the size changes. The fastest of them counts,
/// because a machine with other work makes some of them slow.
const MEASURED: u32 = 4;
/// Time for a row, relative to the best smaller size, above which a size is worse.
const WORSE: f64 = 1.05;
/// Full batches before a size that was worse is tried again, because the work may have changed.
const REST: u32 = 1000;

/// The size of a worker's batches.
#[derive(Debug)]
pub(super) struct BatchSize {
    most: usize,
    wanted: usize,
    /// Half the time that one call may take; `None` without a limit.
    longest: Option<Duration>,
    /// Seconds for a row in the best of the smaller sizes.
    smaller: f64,
    /// Seconds for a row in the best batch of this size so far.
    here: f64,
    /// Full batches of this size so far.
    measured: u32,
    /// Full batches before the next larger size is tried.
    rest: u32,
}

impl BatchSize {
    /// A size that begins with the smallest batch. `limit` is the time that one call may take; zero
    /// means none.
    pub(super) fn growing(most: usize, limit: Duration) -> Self {
        Self {
            most,
            wanted: LEAST.min(most),
            longest: Some(limit / 2).filter(|longest| !longest.is_zero()),
            smaller: f64::INFINITY,
            here: f64::INFINITY,
            measured: 0,
            rest: 0,
        }
    }

    /// A size that never changes.
    pub(super) fn fixed(size: usize) -> Self {
        Self { wanted: size, ..Self::growing(size, Duration::ZERO) }
    }

    /// How many jobs to claim together.
    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Notes the time that a batch of `jobs` with this many rows took.
    pub(super) fn record(&mut self, jobs: usize, rows: usize, time: Duration) {
        if self.longest.is_some_and(|longest| time > longest) && jobs > LEAST {
            return self.change_to(self.wanted / 2, REST);
        }
        if jobs < self.wanted || rows == 0 {
            return;
        }
        self.here = self.here.min(time.as_secs_f64() / rows as f64);
        self.measured += 1;
        self.rest = self.rest.saturating_sub(1);
        if self.measured < MEASURED || self.rest > 0 {
            return;
        }
        if self.here > self.smaller * WORSE {
            return self.change_to(self.wanted / 2, REST);
        }
        let fits = self.longest.is_none_or(|longest| time * 2 <= longest);
        if self.wanted < self.most && fits {
            self.smaller = self.here;
            self.change_to(self.wanted * 2, 0);
        }
    }

    fn change_to(&mut self, size: usize, rest: u32) {
        if rest > 0 {
            self.smaller = f64::INFINITY;
        }
        self.wanted = size.clamp(LEAST.min(self.most), self.most);
        (self.here, self.measured, self.rest) = (f64::INFINITY, 0, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size after many full batches whose time this function gives.
    fn settled(most: usize, limit: Duration, time: impl Fn(usize) -> Duration) -> usize {
        let mut size = BatchSize::growing(most, limit);
        for _ in 0..100 {
            let jobs = size.wanted();
            size.record(jobs, jobs, time(jobs));
        }
        size.wanted()
    }

    fn ms(milliseconds: f64) -> Duration {
        Duration::from_secs_f64(milliseconds / 1e3)
    }

    #[test]
    fn it_grows_to_the_maximum_while_rows_get_cheaper_or_cost_the_same() {
        assert_eq!(settled(32, Duration::ZERO, |jobs| ms(10.0 + jobs as f64)), 32);
        assert_eq!(settled(20, Duration::ZERO, |jobs| ms(jobs as f64)), 20);
        assert_eq!(settled(1, Duration::ZERO, |jobs| ms(jobs as f64)), 1);
    }

    #[test]
    fn it_stops_growing_when_a_row_takes_longer() {
        let time = |jobs: usize| if jobs > 8 { ms(3.0 * jobs as f64) } else { ms(10.0 + jobs as f64) };
        assert_eq!(settled(64, Duration::ZERO, time), 8);
    }

    #[test]
    fn it_stays_within_half_of_the_time_limit() {
        assert_eq!(settled(64, ms(100.0), |jobs| ms(5.0 * jobs as f64)), 8);
        let mut size = BatchSize::growing(8, ms(100.0));
        for _ in 0..20 {
            let jobs = size.wanted();
            size.record(jobs, jobs, ms(1.0));
        }
        size.record(8, 8, ms(60.0));
        assert_eq!(size.wanted(), 4, "the calls have become slower");
    }

    #[test]
    fn one_slow_batch_and_batches_that_are_not_full_do_not_count() {
        let mut size = BatchSize::growing(32, Duration::ZERO);
        for time in [1.0, 1.0, 1.0, 90.0] {
            size.record(2, 2, ms(time));
        }
        assert_eq!(size.wanted(), 4);
        for _ in 0..100 {
            size.record(3, 3, ms(1.0));
        }
        assert_eq!(size.wanted(), 4);
    }

    #[test]
    fn a_size_that_was_worse_is_tried_again_later() {
        let mut size = BatchSize::growing(4, Duration::ZERO);
        let run = |size: &mut BatchSize, times: u32, cost: f64| {
            for _ in 0..times {
                let jobs = size.wanted();
                size.record(jobs, jobs, ms(if jobs == 4 { cost } else { 2.0 }));
            }
        };
        run(&mut size, 2 * MEASURED, 40.0);
        assert_eq!(size.wanted(), 2);
        run(&mut size, REST + MEASURED, 2.0);
        assert_eq!(size.wanted(), 4);
    }

    #[test]
    fn a_fixed_size_stays() {
        let mut size = BatchSize::fixed(7);
        for _ in 0..20 {
            size.record(7, 7, ms(5.0));
        }
        assert_eq!(size.wanted(), 7);
    }
}
