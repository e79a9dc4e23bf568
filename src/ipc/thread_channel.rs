//! Connections between the front and the worker threads of one process (`--worker_class thread`): a
//! queue each way.
//!
//! Owns the queues. They carry the frames of `frame/mod.rs`, as a socket would. The front's ends
//! live in its event loop, each worker's end in that worker's thread; nothing here knows of Python.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::mpsc;

use crate::ipc::{claims::Claims, frame::Frame};

/// Frames of a worker that the front has not taken yet. Larger than the largest in-flight window,
/// so only a stream can fill it.
const UNREAD: usize = 64;

/// Connects the front and the workers. It is made before them, and all of them have a handle to it.
pub struct ThreadChannel {
    arrivals: mpsc::UnboundedSender<FrontEnd>,
    /// `None` once the front has taken it.
    entrance: Mutex<Option<mpsc::UnboundedReceiver<FrontEnd>>>,
}

impl Default for ThreadChannel {
    fn default() -> Self {
        let (arrivals, entrance) = mpsc::unbounded_channel();
        Self { arrivals, entrance: Mutex::new(Some(entrance)) }
    }
}

impl ThreadChannel {
    /// Takes the receiver of new connections. `None` the second time, because there is only one
    /// front.
    pub fn entrance(&self) -> Option<mpsc::UnboundedReceiver<FrontEnd>> {
        self.entrance.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Connects a worker; `None` if the front is gone.
    pub fn connect(&self) -> Option<WorkerEnd> {
        let inbox = Arc::<Inbox>::default();
        let (sender, replies) = mpsc::channel(UNREAD);
        let (claims, theirs) = Claims::pair();
        self.arrivals.send(FrontEnd { sender: FrontSender { inbox: inbox.clone() }, replies, claims: theirs }).ok()?;
        Some(WorkerEnd { inbox, replies: sender, claims })
    }
}

/// The front's end of a connection.
pub struct FrontEnd {
    /// Sends frames to the worker.
    pub sender: FrontSender,
    /// Receives frames from the worker, and ends when the worker is gone.
    pub replies: mpsc::Receiver<Frame>,
    /// The counter that decides who owns the jobs that were sent.
    pub claims: Claims,
}

/// Sends to one worker. Dropping it closes the connection.
pub struct FrontSender {
    inbox: Arc<Inbox>,
}

impl FrontSender {
    /// Puts frames into the worker's inbox.
    pub fn send_all(&self, frames: impl IntoIterator<Item = Frame>) {
        let mut waiting = self.inbox.lock();
        waiting.frames.extend(frames);
        // Wake the worker only once: until it runs, it would still look asleep to each further
        // frame.
        let wake = std::mem::take(&mut waiting.worker_sleeps);
        drop(waiting);
        if wake {
            self.inbox.filled.notify_one();
        }
    }

    /// Closes the connection. The worker gets no more frames, not even those that are in its inbox
    /// already.
    pub fn close(&self) {
        let mut waiting = self.inbox.lock();
        waiting.closed = true;
        waiting.frames.clear();
        drop(waiting);
        self.inbox.filled.notify_one();
    }
}

impl Drop for FrontSender {
    fn drop(&mut self) {
        self.close();
    }
}

/// The result of [`WorkerEnd::take`].
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// The next frame.
    Frame(Frame),
    /// The inbox is empty.
    Nothing,
    /// The connection is closed; no more frames will arrive.
    Closed,
}

/// The worker's end of a connection. Dropping it tells the front that the worker is gone.
pub struct WorkerEnd {
    inbox: Arc<Inbox>,
    replies: mpsc::Sender<Frame>,
    /// The counter that decides who owns the jobs that were received.
    pub claims: Claims,
}

impl WorkerEnd {
    /// Takes the next frame, without waiting.
    pub fn take(&self) -> Taken {
        let mut waiting = self.inbox.lock();
        match waiting.frames.pop_front() {
            Some(frame) => Taken::Frame(frame),
            None if waiting.closed => Taken::Closed,
            None => Taken::Nothing,
        }
    }

    /// Sleeps until [`WorkerEnd::take`] would not return [`Taken::Nothing`].
    pub fn wait(&self) {
        let mut waiting = self.inbox.lock();
        while waiting.frames.is_empty() && !waiting.closed {
            waiting.worker_sleeps = true;
            waiting = self.inbox.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.worker_sleeps = false;
    }

    /// As [`WorkerEnd::wait`], but at most until `end`.
    pub fn wait_until(&self, end: Instant) {
        let mut waiting = self.inbox.lock();
        while waiting.frames.is_empty() && !waiting.closed {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting.worker_sleeps = true;
            waiting = self.inbox.filled.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.worker_sleeps = false;
    }

    /// True if the connection is closed, or if `wanted` is true for a frame in the inbox.
    pub fn is_closed_or_has(&self, wanted: impl Fn(&Frame) -> bool) -> bool {
        let waiting = self.inbox.lock();
        waiting.closed || waiting.frames.iter().any(wanted)
    }

    /// Sends a frame if the front has room for it now; gives it back if not. If the front is gone,
    /// the frame is dropped.
    pub fn try_send(&self, frame: Frame) -> Option<Frame> {
        match self.replies.try_send(frame) {
            Err(mpsc::error::TrySendError::Full(frame)) => Some(frame),
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
        }
    }

    /// Sends a frame, sleeping until the front has room for it.
    pub fn send(&self, frame: Frame) {
        // Ignore an error: the front is gone and no longer wants the frame.
        let _ = self.replies.blocking_send(frame);
    }
}

/// The frames from the front that one worker has not taken yet. A mutex, because both sides hold it
/// only to move one frame.
#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    closed: bool,
    /// The worker sleeps, and nobody has woken it yet. Only then does it need a wake-up, which is a
    /// system call.
    worker_sleeps: bool,
}

impl Inbox {
    /// Nothing that is done under the lock can leave the queue half changed, so a poisoned lock is
    /// safe to use.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::ipc::frame::{encode_with_id, Kind};
    use bytes::Bytes;

    fn frame(id: u64) -> Frame {
        Frame::from_parts(encode_with_id(Kind::Cancel, id, 0), Bytes::new()).expect("a frame")
    }

    fn connect() -> (FrontEnd, WorkerEnd) {
        let channel = ThreadChannel::default();
        let mut entrance = channel.entrance().expect("there is no front yet");
        let worker = channel.connect().expect("a front listens");
        (entrance.try_recv().expect("a worker has come"), worker)
    }

    #[test]
    fn frames_arrive_in_order_both_ways() {
        let (mut front, worker) = connect();
        front.sender.send_all([frame(1)]);
        front.sender.send_all([frame(2)]);
        assert_eq!(
            [worker.take(), worker.take(), worker.take()],
            [Taken::Frame(frame(1)), Taken::Frame(frame(2)), Taken::Nothing]
        );
        assert_eq!(worker.try_send(frame(3)), None);
        assert_eq!(front.replies.try_recv(), Ok(frame(3)));
    }

    #[test]
    fn a_sleeping_worker_wakes_up_for_a_frame_and_for_the_end() {
        let (front, worker) = connect();
        let taken = std::thread::spawn(move || {
            std::iter::repeat_with(|| {
                worker.wait();
                worker.take()
            })
            .take_while(|taken| *taken != Taken::Closed)
            .count()
        });
        front.sender.send_all([frame(1)]);
        while front.sender.inbox.lock().frames.len() == 1 {
            std::thread::yield_now();
        }
        drop(front);
        assert_eq!(taken.join().expect("no panic"), 1);
    }

    #[test]
    fn what_was_not_taken_before_the_end_is_never_taken() {
        let (front, worker) = connect();
        front.sender.send_all([frame(1)]);
        front.sender.close();
        assert_eq!(worker.take(), Taken::Closed);
        assert!(worker.is_closed_or_has(|_| false));
    }

    #[test]
    fn a_front_that_is_gone_takes_everything_and_connects_nobody() {
        let (front, worker) = connect();
        drop(front);
        for id in 0..2 * UNREAD as u64 {
            worker.send(frame(id));
        }
        let channel = ThreadChannel::default();
        assert!(channel.entrance().is_some());
        assert!(channel.connect().is_none(), "its front is gone");
        assert!(channel.entrance().is_none(), "there is one front");
    }

    #[test]
    fn a_full_queue_gives_back_what_it_has_no_room_for() {
        let (mut front, worker) = connect();
        let refused: Vec<Frame> = (0..=UNREAD as u64).filter_map(|id| worker.try_send(frame(id))).collect();
        assert_eq!(refused, [frame(UNREAD as u64)]);
        let sending = std::thread::spawn(move || worker.send(frame(99)));
        while front.replies.blocking_recv() != Some(frame(99)) {}
        sending.join().expect("no panic");
    }
}
