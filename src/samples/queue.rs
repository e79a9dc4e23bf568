//! Where samples wait for the thread that writes them.
//!
//! The front's event loop only pushes: one short lock. The queue is bounded. If the disk is slower than the requests come,
//! samples are dropped and counted.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use super::Sample;

/// Samples that wait, in bytes. One sample may be larger, if no other waits.
const MOST_BYTES: usize = 16 << 20;

/// Why a sample was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// The request's body was above `--record_body_size`.
    Large,
    /// The reply ended before it was complete.
    Incomplete,
    /// The disk refused it.
    Failed,
}

/// How many samples were not written, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    large: u64,
    incomplete: u64,
    busy: u64,
    failed: u64,
}

impl Counts {
    /// The numbers in words; empty if every sample was written.
    pub fn told(&self) -> String {
        let reasons = [
            (self.large, "with a body above --record_body_size"),
            (self.incomplete, "without a complete reply"),
            (self.busy, "that came faster than the disk could write"),
            (self.failed, "that could not be written"),
        ];
        let told: Vec<_> =
            reasons.iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count} {why}")).collect();
        told.join(", ")
    }
}

/// The queue.
#[derive(Default)]
pub struct Queue {
    /// A mutex, because both sides hold it only to move a sample.
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    samples: VecDeque<Sample>,
    bytes: usize,
    missed: Counts,
    /// The folder has as many samples as it may have.
    is_full: bool,
    ended: bool,
}

impl Queue {
    /// Nothing that is done under the lock can leave the queue half changed, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when the folder is full: then requests need not be collected.
    pub fn takes_more(&self) -> bool {
        !self.lock().is_full
    }

    /// Adds a sample, or counts it as missed.
    pub fn push(&self, sample: Sample) {
        let (mut waiting, size) = (self.lock(), sample.size());
        if waiting.is_full {
            return;
        }
        if waiting.bytes > 0 && waiting.bytes + size > MOST_BYTES {
            waiting.missed.busy += 1;
            return;
        }
        waiting.bytes += size;
        waiting.samples.push_back(sample);
        drop(waiting);
        self.changed.notify_one();
    }

    /// Counts a sample that is not written.
    pub fn note_missed(&self, missed: Missed) {
        let mut waiting = self.lock();
        let counts = &mut waiting.missed;
        match missed {
            Missed::Large => counts.large += 1,
            Missed::Incomplete => counts.incomplete += 1,
            Missed::Failed => counts.failed += 1,
        }
    }

    /// No more samples are written from now on.
    pub fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_full = true;
        waiting.samples.clear();
        waiting.bytes = 0;
    }

    /// No more samples will come. Those that wait are still taken.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// Waits for the next sample; `None` when no more come.
    pub fn take(&self) -> Option<Sample> {
        let mut waiting = self.lock();
        loop {
            if let Some(sample) = waiting.samples.pop_front() {
                waiting.bytes -= sample.size();
                return Some(sample);
            }
            if waiting.ended {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many samples wait.
    pub fn length(&self) -> usize {
        self.lock().samples.len()
    }

    /// What was not written so far.
    pub fn missed(&self) -> Counts {
        self.lock().missed
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn sample(bytes: usize) -> Sample {
        Sample {
            method: String::new(),
            path: "/score".to_owned(),
            query: String::new(),
            fields: Vec::new(),
            body: vec![b' '; bytes].into(),
            status: 200,
            reply_fields: Vec::new(),
            reply: Some(Bytes::new()),
        }
    }

    #[test]
    fn samples_beyond_the_limit_are_dropped_and_counted() {
        let queue = Queue::default();
        queue.push(sample(2 * MOST_BYTES));
        queue.push(sample(1));
        assert_eq!(queue.missed().told(), "1 that came faster than the disk could write");
        assert_eq!(queue.take().map(|sample| sample.body.len()), Some(2 * MOST_BYTES));
        queue.push(sample(1));
        assert_eq!(queue.length(), 1);
        queue.end();
        assert!(queue.take().is_some() && queue.take().is_none());
    }

    #[test]
    fn a_closed_queue_keeps_nothing() {
        let queue = Queue::default();
        queue.push(sample(1));
        assert!(queue.takes_more());
        queue.close();
        queue.push(sample(1));
        assert!(!queue.takes_more());
        assert_eq!((queue.length(), queue.missed()), (0, Counts::default()));
    }

    #[test]
    fn a_sample_wakes_the_thread() {
        let queue = std::sync::Arc::new(Queue::default());
        let other = queue.clone();
        let taking = std::thread::spawn(move || (other.take().is_some(), other.take().is_some()));
        queue.push(sample(1));
        queue.end();
        assert_eq!(taking.join().expect("no panic"), (true, false));
    }

    #[test]
    fn reasons_are_told() {
        let queue = Queue::default();
        assert_eq!(queue.missed().told(), "");
        for missed in [Missed::Large, Missed::Incomplete, Missed::Failed, Missed::Failed] {
            queue.note_missed(missed);
        }
        assert_eq!(
            queue.missed().told(),
            "1 with a body above --record_body_size, 1 without a complete reply, 2 that could not be written"
        );
    }
}
