//! What the threads of a pool share: the jobs that wait, the jobs that run, and whether the pool
//! goes on.
//!
//! The main thread of the worker puts jobs in, and each thread takes one when it is idle. Taking a
//! job claims it, under the lock, because the claims of a connection must be in the order of its
//! jobs. Nothing here needs the GIL, and nobody waits for the GIL while holding the lock.

use std::{
    collections::VecDeque,
    io::Write as _,
    os::unix::net::UnixStream,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
};

use super::super::{executor::Notice, transport::Arrived};
use crate::ipc::claims::Claims;

/// The shared state of a pool.
pub(super) struct Shared {
    /// A mutex, because every side holds it for a few instructions only.
    state: Mutex<State>,
    /// A job waits, or the pool is closed.
    filled: Condvar,
    /// The client of a stream has read, or has left.
    released: Condvar,
    /// The main thread waits for the other end; see [`Shared::thread_ends`].
    wake: UnixStream,
}

struct State {
    /// Threads take no more jobs, and end.
    is_closed: bool,
    /// The connection to the front that the jobs are of.
    connection: u64,
    /// Its socket, which is closed when the connection has ended.
    stream: Weak<UnixStream>,
    claims: Option<Arc<Claims>>,
    waiting: VecDeque<Waiting>,
    running: Vec<Running>,
    /// Threads that have not ended.
    threads: usize,
    /// Why a thread has failed.
    fault: Option<String>,
}

struct Waiting {
    /// The number of the job on its connection (`ipc/claims.rs`).
    number: u64,
    /// The id of the job.
    id: u64,
    arrived: Arrived,
}

/// A job that a thread has claimed.
struct Running {
    connection: u64,
    id: u64,
    client: Client,
}

/// What the client of a running job does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Waits,
    /// It does not read its stream, which must wait.
    Lags,
    Left,
}

/// A job that the thread which has this has claimed. Only such a thread can end it, because the front
/// may send a revoked job again, with the same id, while another thread still has the first copy.
pub(super) struct Claim {
    connection: u64,
    id: u64,
}

/// What a thread gets that asks for a job.
pub(super) enum Next {
    /// A job of this connection. Without a claim the front has revoked it.
    Job {
        arrived: Arrived,
        connection: u64,
        claim: Option<Claim>,
    },
    Nothing,
    Closed,
}

impl Shared {
    /// The state of a pool without threads. A byte is written to `wake` when a thread ends.
    pub(super) fn new(wake: UnixStream) -> Self {
        let state = State {
            is_closed: false,
            connection: 0,
            stream: Weak::new(),
            claims: None,
            waiting: VecDeque::new(),
            running: Vec::new(),
            threads: 0,
            fault: None,
        };
        Self { state: Mutex::new(state), filled: Condvar::new(), released: Condvar::new(), wake }
    }

    /// A panic cannot leave the state half changed, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- For the main thread

    /// The worker has connected to the front. Jobs of an earlier connection have lost their clients:
    /// those that wait must not start.
    pub(super) fn connected(&self, connection: u64, stream: Weak<UnixStream>, claims: Option<Arc<Claims>>) {
        let mut state = self.lock();
        (state.connection, state.stream, state.claims) = (connection, stream, claims);
        state.waiting.clear();
        drop(state);
        self.released.notify_all();
    }

    /// Puts in a job, the next one of this connection.
    pub(super) fn push(&self, number: u64, id: u64, arrived: Arrived) {
        self.lock().waiting.push_back(Waiting { number, id, arrived });
        self.filled.notify_one();
    }

    /// The front has said something about a job. If the job does not run, the notice came too late,
    /// or the front has revoked it.
    pub(super) fn note(&self, id: u64, notice: Notice) {
        let mut state = self.lock();
        let connection = state.connection;
        let about = |running: &&mut Running| (running.connection, running.id) == (connection, id);
        let running = state.running.iter_mut().find(about);
        // A client that has left does not come back.
        if let Some(running) = running.filter(|running| running.client != Client::Left) {
            running.client = match notice {
                Notice::Cancel => Client::Left,
                Notice::Hold => Client::Lags,
                Notice::Resume => Client::Waits,
            };
        }
        drop(state);
        self.released.notify_all();
    }

    /// Threads end when they have finished their jobs. Jobs that wait are not claimed, so the front
    /// gives them to other workers.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.waiting.clear();
        drop(state);
        self.filled.notify_all();
    }

    /// True when all threads have ended.
    pub(super) fn has_no_threads(&self) -> bool {
        self.lock().threads == 0
    }

    /// Why a thread has failed, if one has.
    pub(super) fn fault(&self) -> Option<String> {
        self.lock().fault.take()
    }

    // ---- For the threads

    /// Counts a thread that is about to start.
    pub(super) fn thread_begins(&self) {
        self.lock().threads += 1;
    }

    /// A thread ends, because the pool is closed, or because of this fault. Wakes the main thread.
    pub(super) fn thread_ends(&self, fault: Option<String>) {
        let mut state = self.lock();
        state.threads -= 1;
        state.fault = state.fault.take().or(fault);
        drop(state);
        // It fails only if the main thread has gone, or has enough bytes to wake it already.
        let _ = (&self.wake).write(&[0]);
    }

    /// The next job, without waiting. The caller must have ended its last job. After the end of the
    /// connection no job starts.
    pub(super) fn take(&self) -> Next {
        let mut state = self.lock();
        if state.is_closed {
            return Next::Closed;
        }
        let connection = state.connection;
        if state.stream.strong_count() == 0 {
            state.waiting.clear();
        }
        let Some(Waiting { number, id, arrived }) = state.waiting.pop_front() else { return Next::Nothing };
        let is_claimed = state.claims.as_ref().is_none_or(|claims| claims.claim(number));
        let claim = is_claimed.then(|| {
            state.running.push(Running { connection, id, client: Client::Waits });
            Claim { connection, id }
        });
        Next::Job { arrived, connection, claim }
    }

    /// Waits until there may be a job, or the pool is closed.
    pub(super) fn wait(&self) {
        let state = self.lock();
        let must_wait = |state: &mut State| state.waiting.is_empty() && !state.is_closed;
        drop(self.filled.wait_while(state, must_wait).unwrap_or_else(PoisonError::into_inner));
    }

    /// Forgets a running job, which has ended.
    pub(super) fn end(&self, Claim { connection, id }: Claim) {
        self.lock().running.retain(|running| (running.connection, running.id) != (connection, id));
    }

    /// True if the stream of this job must wait until its client reads.
    pub(super) fn must_wait(&self, connection: u64, id: u64) -> bool {
        self.lock().client(connection, id) == Client::Lags
    }

    /// Waits while [`Shared::must_wait`].
    pub(super) fn wait_for_client(&self, connection: u64, id: u64) {
        let state = self.lock();
        let must_wait = |state: &mut State| state.client(connection, id) == Client::Lags;
        drop(self.released.wait_while(state, must_wait).unwrap_or_else(PoisonError::into_inner));
    }

    /// True if nobody waits for this job any more.
    pub(super) fn has_left(&self, connection: u64, id: u64) -> bool {
        self.lock().client(connection, id) == Client::Left
    }
}

impl State {
    /// What the client of a running job does. The clients of an earlier connection have left.
    fn client(&self, connection: u64, id: u64) -> Client {
        if connection != self.connection {
            return Client::Left;
        }
        let about = |running: &&Running| (running.connection, running.id) == (connection, id);
        self.running.iter().find(about).map_or(Client::Left, |running| running.client)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ipc::frame::{Frame, Kind};

    fn pool() -> (Shared, Arc<UnixStream>, Claims) {
        let (wake, woken) = UnixStream::pair().expect("sockets");
        let (worker, front) = Claims::pair();
        let shared = Shared::new(wake);
        let stream = Arc::new(woken);
        shared.connected(1, Arc::downgrade(&stream), Some(Arc::new(worker)));
        (shared, stream, front)
    }

    fn push(shared: &Shared, number: u64) {
        let frame = Frame { kind: Kind::Job, head: Bytes::new(), body: Bytes::new() };
        shared.push(number, 100 + number, frame.into());
    }

    /// Whether the next job was claimed; `None` if there is none.
    fn take(shared: &Shared) -> Option<bool> {
        match shared.take() {
            Next::Job { claim, .. } => Some(claim.is_some()),
            Next::Nothing | Next::Closed => None,
        }
    }

    #[test]
    fn jobs_are_claimed_in_order_when_a_thread_takes_them_and_not_before() {
        let (shared, _stream, front) = pool();
        (0..4).for_each(|number| push(&shared, number));
        assert_eq!((take(&shared), take(&shared)), (Some(true), Some(true)));
        assert_eq!(front.revoke(4), 2, "two are claimed, two are given to others");
        push(&shared, 4);
        assert_eq!((take(&shared), take(&shared), take(&shared)), (Some(false), Some(false), Some(true)));
        assert_eq!(take(&shared), None);
    }

    #[test]
    fn what_waits_when_the_pool_is_closed_is_left_to_other_workers() {
        let (shared, _stream, front) = pool();
        push(&shared, 0);
        push(&shared, 1);
        assert_eq!(take(&shared), Some(true));
        shared.close();
        shared.wait();
        assert!(matches!(shared.take(), Next::Closed));
        assert_eq!(front.revoke(2), 1);
    }

    #[test]
    fn jobs_of_a_lost_connection_do_not_start_and_their_ids_mean_nothing_afterwards() {
        let (shared, stream, _front) = pool();
        push(&shared, 0);
        assert_eq!(take(&shared), Some(true));
        push(&shared, 1);
        drop(stream);
        assert_eq!(take(&shared), None);
        push(&shared, 2);
        let (other, _other_end) = UnixStream::pair().expect("sockets");
        let (other, (worker, _other_front)) = (Arc::new(other), Claims::pair());
        shared.connected(2, Arc::downgrade(&other), Some(Arc::new(worker)));
        assert_eq!(take(&shared), None);
        push(&shared, 0);
        assert_eq!(take(&shared), Some(true));
        shared.note(100, Notice::Hold);
        assert!(shared.must_wait(2, 100), "the new front's job");
        assert!(shared.has_left(1, 100), "the lost front's job");
        shared.end(Claim { connection: 1, id: 100 });
        assert!(shared.must_wait(2, 100));
    }

    #[test]
    fn a_thread_with_a_revoked_copy_cannot_end_the_job_that_was_sent_again() {
        let (shared, _stream, front) = pool();
        let frame = || Frame { kind: Kind::Job, head: Bytes::new(), body: Bytes::new() };
        shared.push(0, 7, frame().into());
        assert_eq!(front.revoke(1), 0);
        shared.push(1, 7, frame().into());
        let (Next::Job { claim: stale, .. }, Next::Job { claim: again, .. }) = (shared.take(), shared.take()) else {
            panic!("two copies wait");
        };
        assert!(stale.is_none(), "nothing to end");
        assert!(!shared.has_left(1, 7), "the client of the second copy");
        shared.end(again.expect("a claim"));
        assert!(shared.has_left(1, 7));
    }

    #[test]
    fn a_stream_waits_while_its_client_lags_and_ends_when_it_has_left() {
        let (shared, _stream, _front) = pool();
        push(&shared, 0);
        assert_eq!(take(&shared), Some(true));
        shared.note(100, Notice::Hold);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| shared.wait_for_client(1, 100));
            shared.note(100, Notice::Resume);
            waits.join().expect("no panic");
        });
        assert!(!shared.has_left(1, 100));
        shared.note(100, Notice::Cancel);
        shared.note(100, Notice::Hold);
        assert!(shared.has_left(1, 100) && !shared.must_wait(1, 100));
    }

    #[test]
    fn the_main_thread_is_woken_when_a_thread_ends_and_learns_of_its_fault() {
        use std::io::Read as _;

        let (shared, stream, _front) = pool();
        let mut woken = &*stream;
        shared.thread_begins();
        shared.thread_begins();
        shared.thread_ends(None);
        woken.read_exact(&mut [0]).expect("a byte");
        assert!(!shared.has_no_threads());
        shared.thread_ends(Some("a fault".to_owned()));
        woken.read_exact(&mut [0]).expect("a byte");
        assert_eq!((shared.has_no_threads(), shared.fault()), (true, Some("a fault".to_owned())));
    }
}
