//! Where log records wait for the thread that writes them: bounded, so that requests never wait for the log.
//!
//! Any thread puts records in, one takes them out (`logging/mod.rs`).

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::record::OwnedRecord;
use crate::telemetry::item::Request;

/// How many records may wait. One takes about 500 bytes.
const CAPACITY: usize = 16 * 1024;
/// Records are gathered for this long before a batch is written: one wake-up and one write for all
/// of them.
pub(super) const GATHER: Duration = Duration::from_millis(5);
/// How many times the thread looks for records by itself before it sleeps until it is woken. Waking
/// it costs the front a system call of about 20 µs, which delays the client's reply.
const LOOKS: u32 = 10;

/// What waits for the thread.
// Requests are the usual entries if lines are JSON. `Request` says why they are not in a box.
#[allow(clippy::large_enum_variant)]
pub(super) enum Entry {
    /// A record.
    Record(OwnedRecord),
    /// A request, whose line is JSON.
    Request(Request),
}

#[derive(Default)]
struct Waiting {
    records: Vec<Entry>,
    dropped: u64,
    ended: bool,
    /// The thread sleeps until it is woken.
    asleep: bool,
}

/// The queue. A mutex, since both sides hold it only to push or to swap a vector.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

impl Queue {
    /// A panic cannot leave the vector half changed, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry, or drops and counts it if too many wait.
    pub(super) fn push(&self, record: Entry) {
        let mut waiting = self.lock();
        if waiting.records.len() >= CAPACITY {
            waiting.dropped += 1;
            return;
        }
        let wake = std::mem::take(&mut waiting.asleep);
        waiting.records.push(record);
        drop(waiting);
        if wake {
            self.filled.notify_one();
        }
    }

    /// No more entries will come.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.filled.notify_one();
    }

    /// Moves all queued records into `taken`, which must be empty; waits if there are none. Returns how many were dropped.
    /// `None` once the queue has ended and is empty. The queue goes on with the memory of `taken`.
    pub(super) fn take(&self, taken: &mut Vec<Entry>) -> Option<u64> {
        let mut waiting = self.lock();
        let mut looks = 0;
        while !waiting.ended && (looks == 0 || waiting.records.is_empty()) {
            if looks == LOOKS {
                waiting.asleep = true;
                waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                looks = 0;
            } else {
                drop(waiting);
                std::thread::sleep(GATHER);
                waiting = self.lock();
                looks += 1;
            }
        }
        if waiting.records.is_empty() {
            return None;
        }
        std::mem::swap(&mut waiting.records, taken);
        Some(std::mem::take(&mut waiting.dropped))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use log::Level;

    use super::*;

    fn entry() -> Entry {
        Entry::Record(OwnedRecord::new(Level::Info, "azmlinfsrv", "GET /score 200".to_owned(), None))
    }

    #[test]
    fn a_full_queue_counts_what_it_drops_and_keeps_the_order() {
        let queue = Queue::default();
        for _ in 0..CAPACITY + 3 {
            queue.push(entry());
        }
        queue.end();
        let mut records = Vec::new();
        let dropped = queue.take(&mut records).expect("records");
        assert_eq!((records.len(), dropped), (CAPACITY, 3));
        assert!(queue.take(&mut Vec::new()).is_none());
    }

    #[test]
    fn a_record_is_taken_while_the_thread_looks_for_it_and_when_it_has_gone_to_sleep() {
        let queue = Arc::<Queue>::default();
        let (sender, taken) = std::sync::mpsc::channel();
        let other = queue.clone();
        let thread = std::thread::spawn(move || {
            let mut records = Vec::new();
            while other.take(&mut records).is_some() {
                sender.send(records.drain(..).count()).expect("the test goes on");
            }
        });
        let patience = Duration::from_secs(60);
        for _ in 0..2 {
            queue.push(entry());
            assert_eq!(taken.recv_timeout(patience), Ok(1));
            let deadline = Instant::now() + patience;
            while !queue.lock().asleep {
                assert!(Instant::now() < deadline, "it never sleeps");
                std::thread::yield_now();
            }
        }
        queue.end();
        thread.join().expect("no panic");
    }
}
