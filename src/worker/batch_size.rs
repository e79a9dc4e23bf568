//! How many jobs a worker claims together: doubles with each full batch up to the maximum, and
//! shrinks only if a smaller size is clearly faster for each row of the input.
//!
//! Pure decisions from measured times. Used on the worker's thread by `executor/batching.rs`.

use std::time::Duration;

/// The smallest batch.
const LEAST: usize = 2;
/// Full batches of each size that a trial measures. The fastest of them counts, because other work on
/// the machine makes batches slower and never faster.
const MEASURED: u32 = 5;
/// Time for a row, relative to the best size, above which a size is worse. On a busy machine the
/// fastest of five equal batches varies by about a quarter.
const WORSE: f64 = 1.25;
/// Time for a row, relative to the best larger size, from which a trial ends, because smaller sizes
/// will be slower still. Twice, so that noise seldom ends a trial too early.
const HOPELESS: f64 = 2.0;
/// Full batches before the first trial. Each trial that changes nothing doubles them, so that trials
/// cost less and less.
const FIRST_PAUSE: u32 = 16;
/// The pause does not become longer, because the work may change.
const LONGEST_PAUSE: u32 = 1024;

/// The size of a worker's batches.
#[derive(Debug)]
pub(super) struct BatchSize {
    most: usize,
    /// The size outside of trials.
    settled: usize,
    phase: Phase,
    /// Full batches between the last trial and the next one.
    pause: u32,
    /// Half the time that one call may take; `None` without a limit.
    longest: Option<Duration>,
}

#[derive(Debug)]
enum Phase {
    /// The size never changes.
    Fixed,
    /// Each full batch doubles the size.
    Growing,
    /// So many more full batches precede the next trial.
    Resting { left: u32 },
    /// A trial measures sizes from the largest one down.
    Trying(Trial),
}

/// The measurements of a trial.
#[derive(Debug)]
struct Trial {
    /// The size of the batches that are measured now.
    size: usize,
    /// How many more of them.
    left: u32,
    /// Seconds for a row in the fastest of them so far.
    row: f64,
    /// The larger sizes, from the largest one on, with the seconds for a row.
    larger: Vec<(usize, f64)>,
}

impl BatchSize {
    /// A size that begins with the smallest batch. `limit` is the time that one call may take; zero
    /// means none.
    pub(super) fn growing(most: usize, limit: Duration) -> Self {
        Self {
            most,
            settled: LEAST.min(most),
            phase: Phase::Growing,
            pause: FIRST_PAUSE,
            longest: Some(limit / 2).filter(|longest| !longest.is_zero()),
        }
    }

    /// A size that never changes.
    pub(super) fn fixed(size: usize) -> Self {
        Self { settled: size, phase: Phase::Fixed, ..Self::growing(size, Duration::ZERO) }
    }

    /// How many jobs to claim together.
    pub(super) fn wanted(&self) -> usize {
        match &self.phase {
            Phase::Fixed | Phase::Growing | Phase::Resting { .. } => self.settled,
            Phase::Trying(trial) => trial.size,
        }
    }

    /// Notes the time that a batch of `jobs` with this many rows took. `joined` of its jobs shared calls.
    /// If most of them did not, a larger batch would only keep jobs from other workers.
    pub(super) fn record(&mut self, jobs: usize, joined: usize, rows: usize, time: Duration) {
        if self.longest.is_some_and(|longest| time > longest) && jobs > LEAST {
            return self.settle_for(self.smaller(self.wanted()).unwrap_or(self.settled), self.pause * 2);
        }
        if jobs < self.wanted() || joined * 2 < jobs || rows == 0 {
            return;
        }
        match &mut self.phase {
            Phase::Fixed => {}
            Phase::Growing => {
                let double = (self.settled * 2).min(self.most);
                if double == self.settled || !self.fits(double, time) {
                    self.phase = Phase::Resting { left: self.pause };
                } else {
                    self.settled = double;
                }
            }
            Phase::Resting { left } if *left > 1 => *left -= 1,
            Phase::Resting { .. } => {
                let mut size = self.most;
                while size > self.settled && !self.fits(size, time) {
                    size = self.smaller(size).unwrap_or(self.settled);
                }
                self.phase = Phase::Trying(Trial::new(size, Vec::new()));
            }
            Phase::Trying(trial) => {
                trial.row = trial.row.min(time.as_secs_f64() / rows as f64);
                trial.left -= 1;
                if trial.left == 0 {
                    self.continue_trial();
                }
            }
        }
    }

    /// Tries the next smaller size, or ends the trial.
    fn continue_trial(&mut self) {
        let Phase::Trying(trial) = &mut self.phase else { return };
        let is_hopeless = trial.row > trial.best_of_larger() * HOPELESS;
        trial.larger.push((trial.size, trial.row));
        let (size, measured) = (trial.size, std::mem::take(&mut trial.larger));
        if let Some(smaller) = self.smaller(size).filter(|_| !is_hopeless) {
            self.phase = Phase::Trying(Trial::new(smaller, measured));
            return;
        }
        let best = measured.iter().map(|(_, row)| *row).fold(f64::INFINITY, f64::min);
        let largest = measured.iter().find(|(_, row)| *row <= best * WORSE);
        let size = largest.map_or(self.settled, |(size, _)| *size);
        self.settle_for(size, if size == self.settled { self.pause * 2 } else { FIRST_PAUSE });
    }

    fn settle_for(&mut self, size: usize, pause: u32) {
        self.settled = size;
        self.pause = pause.min(LONGEST_PAUSE);
        self.phase = Phase::Resting { left: self.pause };
    }

    /// True if a batch of this size may be expected to keep the time limit, after one of the settled
    /// size took `time`.
    fn fits(&self, size: usize, time: Duration) -> bool {
        let expected = time.as_secs_f64() * size as f64 / self.settled as f64;
        self.longest.is_none_or(|longest| expected <= longest.as_secs_f64())
    }

    /// The next smaller size: a power of two.
    fn smaller(&self, size: usize) -> Option<usize> {
        Some(size.next_power_of_two() / 2).filter(|smaller| *smaller >= LEAST.min(self.most))
    }
}

impl Trial {
    fn new(size: usize, larger: Vec<(usize, f64)>) -> Self {
        Self { size, left: MEASURED, row: f64::INFINITY, larger }
    }

    fn best_of_larger(&self) -> f64 {
        self.larger.iter().map(|(_, row)| *row).fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests;
