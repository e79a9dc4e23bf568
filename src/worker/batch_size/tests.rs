//! Tests of `batch_size.rs`.

use super::*;

/// Random factors that are the same in each run.
struct Noise(u64);

impl Noise {
    /// A factor from 1 up to `most`.
    fn factor(&mut self, most: f64) -> f64 {
        // Constants of Knuth's MMIX generator.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1.0 + (most - 1.0) * (self.0 >> 40) as f64 / (1_u64 << 24) as f64
    }
}

/// The sizes of full batches whose time this function gives, which noise multiplies by up to
/// three.
fn noisy(seed: u64, most: usize, batches: usize, time: impl Fn(usize) -> Duration) -> Vec<usize> {
    let mut noise = Noise(seed);
    let mut size = BatchSize::growing(most, Duration::ZERO);
    let mut next = || {
        let jobs = size.wanted();
        size.record(jobs, jobs, jobs, time(jobs).mul_f64(noise.factor(3.0)));
        jobs
    };
    (0..batches).map(|_| next()).collect()
}

/// The share of these batches that had one of the sizes.
fn share(batches: &[usize], sizes: std::ops::RangeInclusive<usize>) -> f64 {
    batches.iter().filter(|jobs| sizes.contains(*jobs)).count() as f64 / batches.len() as f64
}

/// The size after many full batches whose time this function gives.
fn settled(most: usize, limit: Duration, time: impl Fn(usize) -> Duration) -> usize {
    let mut size = BatchSize::growing(most, limit);
    for _ in 0..200 {
        let jobs = size.wanted();
        size.record(jobs, jobs, jobs, time(jobs));
    }
    size.settled
}

fn ms(milliseconds: f64) -> Duration {
    Duration::from_secs_f64(milliseconds / 1e3)
}

#[test]
fn it_grows_to_the_maximum_while_rows_get_cheaper_or_cost_the_same() {
    assert_eq!(settled(32, Duration::ZERO, |jobs| ms(10.0 + jobs as f64)), 32);
    assert_eq!(settled(20, Duration::ZERO, |jobs| ms(jobs as f64)), 20);
    assert_eq!(settled(2, Duration::ZERO, |jobs| ms(jobs as f64)), 2);
    assert_eq!(settled(1, Duration::ZERO, |jobs| ms(jobs as f64)), 1);
}

#[test]
fn noise_does_not_keep_it_from_the_maximum() {
    for seed in 0..100 {
        // A product of a matrix with vectors: most of the time goes to reading the matrix.
        let sizes = noisy(seed, 32, 2000, |jobs| ms(10.0 + 0.2 * jobs as f64));
        assert_eq!(sizes[..5], [2, 4, 8, 16, 32], "seed {seed}");
        let share = share(&sizes, 32..=32);
        assert!(share > 0.9, "seed {seed}: {share}");
    }
}

#[test]
fn it_finds_the_best_size_if_larger_ones_are_worse() {
    let time = |jobs: usize| if jobs > 8 { ms(3.0 * jobs as f64) } else { ms(10.0 + jobs as f64) };
    assert_eq!(settled(64, Duration::ZERO, time), 8);
}

#[test]
fn it_finds_the_best_size_in_spite_of_noise() {
    // From 16 on, the rows do not fit into the processor's cache.
    let time = |jobs: usize| if jobs > 8 { ms(10.0 * jobs as f64) } else { ms(10.0 + jobs as f64) };
    for seed in 0..100 {
        let sizes = noisy(seed, 64, 3000, time);
        let share = share(&sizes[500..], 4..=8);
        assert!(share > 0.8, "seed {seed}: {share}");
    }
}

#[test]
fn it_stays_within_half_of_the_time_limit() {
    assert_eq!(settled(64, ms(100.0), |jobs| ms(5.0 * jobs as f64)), 8);
    let mut size = BatchSize::growing(8, ms(100.0));
    for _ in 0..6 {
        let jobs = size.wanted();
        size.record(jobs, jobs, jobs, ms(1.0));
    }
    assert_eq!(size.wanted(), 8);
    size.record(8, 8, 8, ms(60.0));
    assert_eq!(size.wanted(), 4, "the calls have become slower");
}

#[test]
fn batches_that_are_not_full_do_not_count() {
    let mut size = BatchSize::growing(32, Duration::ZERO);
    size.record(2, 2, 2, ms(1.0));
    for _ in 0..100 {
        size.record(3, 3, 3, ms(1.0));
    }
    assert_eq!(size.wanted(), 4);
}

#[test]
fn a_size_that_was_worse_is_tried_again_after_pauses_that_double() {
    let mut size = BatchSize::growing(4, Duration::ZERO);
    let mut sizes = Vec::new();
    for number in 0..400 {
        let jobs = size.wanted();
        sizes.push(jobs);
        let is_slow = jobs == 4 && number < 200;
        size.record(jobs, jobs, jobs, ms(if is_slow { 40.0 } else { 2.0 }));
    }
    // Runs of equal sizes: growth, a pause and a trial of 4, then trials of 4 with longer and longer
    // pauses.
    let runs: Vec<_> = sizes.chunk_by(|one, other| one == other).map(|run| (run[0], run.len())).collect();
    assert_eq!(runs[..6], [(2, 1), (4, 22), (2, 5 + 16), (4, 5), (2, 5 + 32), (4, 5)]);
    assert_eq!(size.settled, 4, "{runs:?}");
}

#[test]
fn a_batch_of_several_kinds_counts_if_half_of_its_jobs_share_calls() {
    for (joined, expected) in [(1, 4), (2, 8)] {
        let mut size = BatchSize::growing(8, Duration::ZERO);
        size.record(2, 2, 2, ms(1.0));
        size.record(4, joined, 4, ms(1.0));
        assert_eq!(size.wanted(), expected, "{joined} of 4 share calls");
    }
}

#[test]
fn a_fixed_size_stays() {
    let mut size = BatchSize::fixed(7);
    for _ in 0..2000 {
        size.record(7, 7, 7, ms(5.0));
    }
    assert_eq!(size.wanted(), 7);
}
