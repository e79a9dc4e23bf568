//! Decides who owns a job that was sent to a worker: a counter in memory that the front and the
//! worker share.
//!
//! Jobs of one connection are numbered from zero in the order in which they are sent, and both ends
//! count them. The counter is the number of the next job that may start. A worker claims a job by
//! raising the counter by one just before it starts the job. The front revokes all unclaimed jobs
//! by raising the counter to the number of the next job that it will send. Both use
//! compare-and-swap, so a job has exactly one owner at any time: it never runs twice and is never
//! lost. After a worker's death the counter shows which jobs it had started
//! (`docs/decisions/2026-11-22-in-flight-window.md`).
//!
//! Used by the front's event loop and on a worker's thread. For a worker process the front makes
//! the counter in a memory file (`memory_file.rs`), and sends the descriptor when the worker
//! connects. The memory lives as long as either end.

use std::sync::{
    atomic::{AtomicU64, Ordering},
    Arc,
};

/// One end of a connection's counter.
#[derive(Debug)]
pub struct Claims {
    counter: Counter,
}

#[derive(Debug)]
enum Counter {
    /// The counter is shared by two threads.
    Threads(Arc<AtomicU64>),
    /// The counter is shared by two processes.
    #[cfg(unix)]
    Processes(mapped::Counter),
}

impl Claims {
    /// Both ends of a new counter, for two threads of this process.
    pub fn pair() -> (Self, Self) {
        let counter = Arc::<AtomicU64>::default();
        (Self { counter: Counter::Threads(counter.clone()) }, Self { counter: Counter::Threads(counter) })
    }

    /// A new counter for two processes: the front's end, and the file for the worker.
    #[cfg(unix)]
    pub fn share() -> std::io::Result<(Self, std::fs::File)> {
        let file = mapped::new_file()?;
        Ok((Self::open(&file)?, file))
    }

    /// The counter in the file that the front has sent: the worker's end.
    #[cfg(unix)]
    pub fn open(file: &std::fs::File) -> std::io::Result<Self> {
        Ok(Self { counter: Counter::Processes(mapped::Counter::map(file)?) })
    }

    fn counter(&self) -> &AtomicU64 {
        match &self.counter {
            Counter::Threads(counter) => counter,
            #[cfg(unix)]
            Counter::Processes(counter) => counter,
        }
    }

    /// For the worker: claims job `number`. False means that the front has revoked it.
    pub fn claim(&self, number: u64) -> bool {
        self.counter().compare_exchange(number, number + 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// For the worker: true if the front has revoked job `number`, which this end has not claimed.
    pub fn is_revoked(&self, number: u64) -> bool {
        self.next() > number
    }

    /// Number of the next job that may start; all below it were claimed or revoked.
    pub fn next(&self) -> u64 {
        self.counter().load(Ordering::Acquire)
    }

    /// For the front: revokes every job below `next` that was not claimed. Returns the number of
    /// the first revoked one; all below it were claimed. `next` is the number of the next job to be
    /// sent.
    pub fn revoke(&self, next: u64) -> u64 {
        let claimed = self.counter().fetch_max(next, Ordering::AcqRel);
        // The script shares the worker's process, so it may have written any number. After such a
        // number, all jobs count as started.
        claimed.min(next)
    }
}

/// A counter in a file that two processes have mapped.
#[cfg(unix)]
#[allow(unsafe_code)]
mod mapped {
    use std::{fs::File, io, ops::Deref, sync::atomic::AtomicU64};

    use crate::ipc::{
        mapping::{Access, Mapping},
        memory_file,
    };

    /// Size of the file.
    const LENGTH: usize = size_of::<AtomicU64>();

    #[derive(Debug)]
    pub(super) struct Counter(Mapping);

    // SAFETY: all access is atomic.
    unsafe impl Sync for Counter {}

    pub(super) fn new_file() -> io::Result<File> {
        memory_file::fixed(c"azmlinfsrv-claims", LENGTH)
    }

    impl Counter {
        pub(super) fn map(file: &File) -> io::Result<Self> {
            if file.metadata()?.len() < LENGTH as u64 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too short for a job counter"));
            }
            Mapping::new(file, 0, LENGTH, Access::Write).map(Self)
        }
    }

    impl Deref for Counter {
        type Target = AtomicU64;

        fn deref(&self) -> &AtomicU64 {
            // SAFETY: the mapping is page aligned, as long as a counter, and lives as long as `self`.
            // The file is as long and has its memory, and its size is sealed. The other process uses
            // it only through atomic operations too.
            unsafe { self.0.start().cast().as_ref() }
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn processes_share_a_counter_in_a_file() {
        let (front, file) = Claims::share().expect("memory");
        let worker = Claims::open(&file).expect("the same memory");
        drop(file);
        assert!(worker.claim(0));
        assert_eq!((front.next(), front.revoke(3), worker.next()), (1, 1, 3));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_is_too_short_is_no_counter() {
        assert!(Claims::open(&std::fs::File::open("/dev/null").expect("a device")).is_err());
    }

    /// A script has the file's descriptor for a moment, and may open it again later.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_script_cannot_take_the_memory_of_the_counter_from_the_front() {
        let (front, file) = Claims::share().expect("memory");
        assert!(file.set_len(0).is_err() && file.set_len(1).is_err());
        assert_eq!(front.next(), 0);
    }

    #[test]
    fn claimed_jobs_stay_and_the_others_go_back() {
        let (worker, front) = Claims::pair();
        assert!(worker.claim(0) && worker.claim(1));
        assert_eq!(front.revoke(5), 2);
        assert!(!worker.claim(2) && !worker.claim(4), "revoked");
        assert!(worker.is_revoked(4) && !worker.is_revoked(5));
        assert!(worker.claim(5), "sent after that");
        assert_eq!(front.revoke(6), 6, "nothing to take back");
    }

    #[test]
    fn a_number_out_of_order_is_never_claimed() {
        let (worker, _front) = Claims::pair();
        assert!(!worker.claim(3));
        assert!(worker.claim(0));
        assert!(!worker.claim(0));
    }

    #[test]
    fn a_counter_that_the_script_has_overwritten_reads_as_all_started() {
        let (worker, front) = Claims::pair();
        worker.counter().store(u64::MAX, Ordering::Release);
        assert_eq!(front.revoke(4), 4);
    }

    #[test]
    fn every_job_has_one_owner_whoever_is_faster() {
        const JOBS: u64 = 50_000;
        let (worker, front) = Claims::pair();
        let claiming = std::thread::spawn(move || (0..JOBS).filter(|number| worker.claim(*number)).count() as u64);
        let revoked: u64 = (1..=JOBS / 7).map(|step| step * 7).map(|next| next - front.revoke(next)).sum();
        let claimed = claiming.join().expect("no panic");
        assert_eq!(claimed + revoked, JOBS, "{claimed} claimed, {revoked} revoked");
    }
}
