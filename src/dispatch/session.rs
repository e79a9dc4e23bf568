//! One connected worker: its hello, what each of its frames means, and the streams that it sends to
//! clients.
//!
//! Runs in the front's event loop, one task per connected worker. `transport/` carries the frames;
//! `core.rs` decides what follows from them.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{mpsc, OwnedSemaphorePermit, Semaphore};

use super::{
    event::Event,
    job::{JobId, WorkerId},
    transport::{FrameReceiver, FrameSender},
    Dispatcher, Interest, Reply, LOG,
};
use crate::{
    fault_injection::{point, Point},
    ipc::frame::{self, Frame, Hello, Kind, ReplyHead},
    panics::{self, caught},
};

/// A peer that does not say hello within this time is not one of our workers.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// How many bytes of a stream the front holds for a slow client before the worker has to wait.
const STREAM_BUFFER: u32 = 1 << 20;

/// Reads frames from one worker until it is gone.
pub(super) async fn serve_worker(mut frames: FrameReceiver, dispatcher: Dispatcher) {
    let hello = match tokio::time::timeout(HELLO_PATIENCE, frames.next()).await {
        Ok(Ok(Some(frame))) => match accepted_hello(&frame) {
            Ok(hello) => hello,
            Err(reason) => return log::error!(target: LOG, "Refused a worker: {reason}"),
        },
        // The worker died or hung before it was ready. The supervisor reports its exit.
        _ => return,
    };
    let (name, is_concurrent) = (hello.worker, hello.concurrent);
    let sender = frames.sender();
    let claims = frames.take_claims(&hello);
    let worker = dispatcher.join(hello, sender.clone(), claims);
    let session = Session { dispatcher: dispatcher.clone(), worker, name, sender: sender.clone(), is_concurrent };
    // A panic drops the worker's connection too, so the worker connects again.
    let problem = match caught(session.serve(frames, sender)).await {
        Ok(Ok(())) => None,
        Ok(Err(problem)) => {
            log::error!(target: LOG, "The front disconnected worker {name}, which sent what is no reply: {problem}");
            Some(format!("the server could not read its reply: {problem}"))
        }
        Err(panic) => {
            log::error!(target: LOG, "The session of worker {name} {panic}. The front disconnects the worker, and gives what it had not begun to others.");
            Some("the server failed to handle its reply".to_owned())
        }
    };
    dispatcher.lose(worker, problem);
}

fn accepted_hello(frame: &Frame) -> Result<Hello, String> {
    if frame.kind != Kind::Hello {
        return Err(format!("its first frame was {:?}", frame.kind));
    }
    let hello = Hello::decode(frame).map_err(|error| error.to_string())?;
    if hello.protocol != frame::PROTOCOL_VERSION {
        return Err(format!("it speaks protocol {}, not {}", hello.protocol, frame::PROTOCOL_VERSION));
    }
    Ok(hello)
}

/// A part of a stream, and the permits that it holds until the client has read it. An error says
/// why the stream broke off; no part follows it.
pub type Part = (Result<Bytes, String>, Option<OwnedSemaphorePermit>);

/// The client's end of a stream. When it and the [`Pending`](super::Pending) are dropped, the core
/// tells the worker that nobody reads the stream any more.
#[derive(Debug)]
pub struct Parts {
    /// The parts in order.
    pub receiver: mpsc::UnboundedReceiver<Part>,
    _interest: Option<Rc<Interest>>,
}

/// The front's end of a stream.
#[derive(Clone)]
pub(super) struct OpenStream {
    parts: mpsc::UnboundedSender<Part>,
    /// [`STREAM_BUFFER`] permits, one per byte.
    room: Arc<Semaphore>,
    /// True while the worker holds the stream.
    is_held: Rc<Cell<bool>>,
}

impl OpenStream {
    /// Both ends of a new stream.
    pub(super) fn new(interest: Option<Rc<Interest>>) -> (Self, Parts) {
        let (parts, receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(STREAM_BUFFER as usize));
        (Self { parts, room, is_held: Rc::default() }, Parts { receiver, _interest: interest })
    }

    /// Tells the client's end that no more parts come, though the stream is not complete.
    pub(super) fn break_off(&self, reason: String) {
        self.send((Err(reason), None));
    }

    /// Ignores a failure: the client has left, and the core learns that when the client's end is
    /// dropped.
    fn send(&self, part: Part) {
        let _ = self.parts.send(part);
    }
}

/// What the task that reads from one worker knows about the worker.
struct Session {
    dispatcher: Dispatcher,
    worker: WorkerId,
    /// The supervisor's name for it.
    name: u32,
    sender: FrameSender,
    /// True if it can hold one stream while others go on.
    is_concurrent: bool,
}

impl Session {
    /// Reads and writes until the connection has ended. An error says why the front cannot read
    /// what the worker sent.
    async fn serve(self, mut frames: FrameReceiver, sender: FrameSender) -> Result<(), String> {
        tokio::select! {
            ended = self.read_frames(&mut frames) => ended,
            // A worker that still reads a large body does not hang, so tell the core.
            ended = sender.write_backlog(|| self.dispatcher.handle(Event::BodyRead(self.worker))) => {
                log::debug!(target: LOG, "Cannot write to worker {}: {ended:?}", self.name);
                Ok(())
            }
        }
    }

    async fn read_frames(&self, frames: &mut FrameReceiver) -> Result<(), String> {
        while let Some(frame) = frames.next().await? {
            self.handle(frame).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn handle(&self, frame: Frame) -> Result<(), frame::FrameError> {
        point(Point::Session);
        let worker = self.worker;
        let received = &self.dispatcher.received;
        received.set(received.get().saturating_add(frame.body.len()));
        match frame.kind {
            Kind::Reply => {
                let head = ReplyHead::decode(&frame)?;
                let event = Event::Replied { worker, job: JobId(head.id), busy_ms: head.busy_ms };
                self.dispatcher.handle_reply(event, Reply::Whole { head, body: frame.body }, Instant::now());
            }
            Kind::StreamStart => {
                let head = ReplyHead::decode(&frame)?;
                let event = Event::StreamStarted(worker, JobId(head.id));
                self.dispatcher.handle_reply(event, Reply::Stream { head }, Instant::now());
            }
            Kind::StreamChunk => self.forward(JobId(frame::decode_id(&frame)?), frame.body).await,
            Kind::StreamEnd => {
                let job = JobId(frame::decode_id(&frame)?);
                if let (Some(stream), false) = (self.dispatcher.stream_of(job), frame.body.is_empty()) {
                    stream.break_off(String::from_utf8_lossy(&frame.body).into_owned());
                }
                self.dispatcher.handle(Event::StreamEnded(worker, job));
            }
            Kind::Goodbye => self.dispatcher.handle(Event::Goodbye(worker)),
            Kind::Skipped => self.dispatcher.handle(Event::Skipped(worker)),
            Kind::CallsAgain => self.dispatcher.handle(Event::CallsAgain(worker)),
            Kind::Hello => self.dispatcher.renew(worker, Hello::decode(&frame)?),
            Kind::Job | Kind::SharedJob | Kind::Cancel | Kind::Retire | Kind::Hold | Kind::Resume => {
                return Err(frame::FrameError::Malformed("message of a worker"));
            }
        }
        Ok(())
    }

    /// Sends a part to the client. While the client has too much unread, this waits, so the front
    /// stops reading from this worker and the script's generator has to wait. A worker that is
    /// concurrent is told to hold the stream instead, because its other replies must not wait.
    async fn forward(&self, job: JobId, part: Bytes) {
        let Some(stream) = self.dispatcher.stream_of(job) else { return };
        let size = u32::try_from(part.len()).unwrap_or(STREAM_BUFFER).min(STREAM_BUFFER);
        let room = match stream.room.clone().try_acquire_many_owned(size) {
            Ok(room) => Some(room),
            Err(_) if self.is_concurrent => {
                self.hold(job, &stream);
                return stream.send((Ok(part), None));
            }
            Err(_) => {
                self.tell_awaits(job, true);
                tokio::select! {
                    room = stream.room.clone().acquire_many_owned(size) => room.ok(),
                    () = stream.parts.closed() => None,
                }
            }
        };
        self.tell_awaits(job, false);
        stream.send((Ok(part), room));
    }

    /// Has the worker hold a stream until its client has read half of what it has unread. What the
    /// worker sends before it knows that is kept.
    fn hold(&self, job: JobId, stream: &OpenStream) {
        if stream.is_held.replace(true) {
            return;
        }
        self.tell_awaits(job, true);
        self.sender.send(frame::encode_with_id(Kind::Hold, job.0, 0), Bytes::new());
        let (dispatcher, worker, sender, stream) =
            (self.dispatcher.clone(), self.worker, self.sender.clone(), stream.clone());
        let resume = async move {
            tokio::select! {
                room = stream.room.acquire_many(STREAM_BUFFER / 2) => drop(room),
                // The client has left, and the worker is told so.
                () = stream.parts.closed() => return,
            }
            stream.is_held.set(false);
            dispatcher.handle(Event::StreamAwaits { worker, job, client: false });
            sender.send(frame::encode_with_id(Kind::Resume, job.0, 0), Bytes::new());
        };
        panics::spawn(resume, |panic| {
            log::error!(target: LOG, "The task that waits for the client of a stream {panic}. The stream is not continued.");
        });
    }

    fn tell_awaits(&self, job: JobId, client: bool) {
        self.dispatcher.handle(Event::StreamAwaits { worker: self.worker, job, client });
    }
}
