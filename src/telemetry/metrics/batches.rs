//! Counts calls of `run()` by how many requests each was made for, in memory that all processes of the server share.
//!
//! Workers count, and only those that join calls (docs/batching.md). Several of them may count at the same moment, so each
//! number is changed by an atomic addition.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{family, output::Output};

/// Upper bounds of the buckets, in requests.
const BOUNDS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
/// The place of the sum. Before it are the buckets, and one more for what is above all bounds.
const SUM: usize = BOUNDS.len() + 1;
/// How many words [`BatchSizes::at`] needs.
pub const LENGTH: usize = SUM + 1;

/// The sizes of all batches so far; copies share the numbers.
#[derive(Debug, Clone, Copy)]
pub struct BatchSizes {
    words: &'static [AtomicU64],
}

impl BatchSizes {
    /// The numbers in these words, of which there must be [`LENGTH`].
    pub const fn at(words: &'static [AtomicU64]) -> Self {
        Self { words }
    }

    /// Counts a call of `run()` for so many requests.
    pub fn count(self, requests: usize) {
        let bucket = BOUNDS.iter().position(|bound| requests as f64 <= *bound).unwrap_or(BOUNDS.len());
        self.words[bucket].fetch_add(1, Relaxed);
        self.words[SUM].fetch_add(requests as u64, Relaxed);
    }

    /// Writes the family. It has a series once a worker that joins calls has made one.
    pub fn write(self, text: &mut dyn Output) {
        let family = &family::BATCH_SIZE;
        text.family(family);
        let counts: Vec<_> = self.words[..SUM].iter().map(|word| word.load(Relaxed)).collect();
        if counts.iter().any(|count| *count > 0) {
            text.histogram(family.name, &[], &BOUNDS, &counts, self.words[SUM].load(Relaxed) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::text::Text, *};

    #[test]
    fn calls_count_by_their_requests_and_there_is_no_series_without_any() {
        let sizes = BatchSizes::at(Vec::leak((0..LENGTH).map(|_| AtomicU64::new(0)).collect()));
        let shown = || {
            let mut text = Text::default();
            sizes.write(&mut text);
            text.finish()
        };
        assert!(!shown().contains("_count"), "{}", shown());
        [1, 2, 3, 32, 5000].into_iter().for_each(|requests| sizes.count(requests));
        for line in [
            "bucket{le=\"1\"} 1",
            "bucket{le=\"2\"} 2",
            "bucket{le=\"4\"} 3",
            "bucket{le=\"16\"} 3",
            "bucket{le=\"32\"} 4",
            "bucket{le=\"1024\"} 4",
            "bucket{le=\"+Inf\"} 5",
            "count 5",
            "sum 5038",
        ] {
            assert!(shown().contains(&format!("azmlinfsrv_run_batch_size_{line}\n")), "{line}\n{}", shown());
        }
    }
}
