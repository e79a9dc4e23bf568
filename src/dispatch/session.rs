//! One connected worker: taking it into the pool, what each of its frames means, and what its end leaves behind.
//!
//! Runs in the front's event loop, one task per connected worker. How frames travel is `transport/mod.rs`.

use std::{cell::RefCell, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{mpsc, OwnedSemaphorePermit, Semaphore};

use super::{
    request_log::RequestLog,
    transport::{Frames, Link},
    Answer, Dispatcher, Submission,
};
use crate::frame::{self, Frame, Hello, Kind, ReplyHead};

/// How long a client of a lost request waits for the supervisor to say what happened to the worker.
const EXIT_CAUSE_PATIENCE: Duration = Duration::from_millis(500);
/// A peer that does not say hello within this time is not one of our workers.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a stream that wait for a slow client before its worker has to wait too.
const STREAM_BUFFER: u32 = 1 << 20;

/// Reads frames from one worker until it is gone, then settles what it leaves behind.
pub(super) async fn serve_worker(mut frames: Frames, dispatcher: Dispatcher) {
    let hello = match tokio::time::timeout(HELLO_PATIENCE, frames.next()).await {
        Ok(Ok(Some(frame))) => match accepted_hello(&frame) {
            Ok(hello) => hello,
            Err(reason) => return log::error!(target: "azmlinfsrv.front", "Refused a worker: {reason}"),
        },
        // It died or hung before it was ready; the supervisor reports its end.
        _ => return,
    };
    let (worker, pid, logs_requests) = (hello.worker, hello.pid, hello.logs_requests);
    let link = frames.link();
    let claims = frames.take_claims(&hello);
    let worker_id = dispatcher.join(hello, link.clone(), claims);
    let session =
        Session { dispatcher: &dispatcher, worker_id, worker, pid, logs_requests, stream: RefCell::new(None) };
    let problem = tokio::select! {
        ended = session.read_frames(&mut frames, &link) => ended.err(),
        ended = link.flush() => {
            log::debug!(target: "azmlinfsrv.front", "Cannot write to worker {worker}: {ended:?}");
            None
        }
    };
    if let Some(problem) = &problem {
        log::error!(target: "azmlinfsrv.front", "Disconnected worker {worker}, which sent what is no reply: {problem}");
    }
    session.settle(dispatcher.leave(worker_id), problem).await;
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

/// A part of a stream on its way to the client, and the room it takes until the client has it.
pub type Part = (Result<Bytes, String>, Option<OwnedSemaphorePermit>);

/// The parts of a stream in their order.
pub type Parts = mpsc::UnboundedReceiver<Part>;

/// The front's end of a stream whose client still listens.
#[derive(Clone)]
struct OpenStream {
    id: u64,
    parts: mpsc::UnboundedSender<Part>,
    /// [`STREAM_BUFFER`] permits, one per byte.
    room: Arc<Semaphore>,
}

/// What one worker's reading task keeps between frames.
struct Session<'a> {
    dispatcher: &'a Dispatcher,
    worker_id: u64,
    /// How the supervisor calls it.
    worker: u32,
    /// Its process.
    pid: u32,
    /// Lines about the requests that it serves go to it.
    logs_requests: bool,
    /// The stream that the worker is in the middle of, and whose client still listens.
    stream: RefCell<Option<OpenStream>>,
}

impl Session<'_> {
    async fn read_frames(&self, frames: &mut Frames, link: &Link) -> Result<(), String> {
        while let Some(frame) = frames.next().await? {
            self.handle(frame, link).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn handle(&self, frame: Frame, link: &Link) -> Result<(), frame::FrameError> {
        self.dispatcher.note_received(frame.body.len());
        match frame.kind {
            Kind::Reply => {
                let head = ReplyHead::decode(&frame)?;
                if let Some(job) = self.dispatcher.finish(self.worker_id, head.id, head.busy_ms) {
                    job.answer(Answer::Whole { head, body: frame.body, log: self.request_log() });
                } else {
                    // It has been answered for the worker, which waits for the lines about it all the same.
                    drop(self.request_log());
                }
            }
            Kind::StreamStart => self.start_stream(ReplyHead::decode(&frame)?, link),
            Kind::StreamChunk => self.forward(frame::decode_id(&frame)?, frame.body, link).await,
            Kind::StreamEnd => self.end_stream(&frame)?,
            Kind::Goodbye => self.dispatcher.give_back(self.worker_id),
            Kind::Skipped => self.dispatcher.skipped(self.worker_id),
            Kind::Hello => self.dispatcher.renew(self.worker_id, Hello::decode(&frame)?),
            Kind::Job | Kind::SharedJob | Kind::Cancel | Kind::Retire | Kind::Log => {
                return Err(frame::FrameError::Malformed("message of a worker"));
            }
        }
        Ok(())
    }

    fn request_log(&self) -> RequestLog {
        if self.logs_requests {
            RequestLog::at_worker(self.pid, self.dispatcher, self.worker_id)
        } else {
            RequestLog::here(Some(self.pid))
        }
    }

    /// The job stays the worker's running one until the stream has ended.
    fn start_stream(&self, head: ReplyHead, link: &Link) {
        let (sender, parts) = mpsc::unbounded_channel();
        let id = head.id;
        let answer = Answer::Stream { head, parts, log: self.request_log() };
        let wanted = self.dispatcher.begin_stream(self.worker_id, id).is_some_and(|reply| reply.send(answer).is_ok());
        if wanted {
            let room = Arc::new(Semaphore::new(STREAM_BUFFER as usize));
            self.stream.replace(Some(OpenStream { id, parts: sender, room }));
        } else {
            link.send(frame::encode_with_id(Kind::Cancel, id, 0), Bytes::new());
        }
    }

    /// Hands a part to the client. Too much unread holds up this worker's socket alone, and with it its generator.
    async fn forward(&self, id: u64, part: Bytes, link: &Link) {
        let open = self.stream.borrow().as_ref().filter(|open| open.id == id).cloned();
        let Some(open) = open else { return };
        let size = u32::try_from(part.len()).unwrap_or(STREAM_BUFFER).min(STREAM_BUFFER);
        self.dispatcher.stream_is_held_up(self.worker_id, true);
        let room = tokio::select! {
            room = open.room.acquire_many_owned(size) => room.ok(),
            () = open.parts.closed() => None,
        };
        self.dispatcher.stream_is_held_up(self.worker_id, false);
        if open.parts.send((Ok(part), room)).is_err() {
            self.stream.replace(None);
            link.send(frame::encode_with_id(Kind::Cancel, id, 0), Bytes::new());
        }
    }

    fn end_stream(&self, frame: &Frame) -> Result<(), frame::FrameError> {
        let id = frame::decode_id(frame)?;
        let open = self.stream.take();
        if let (Some(open), false) = (open, frame.body.is_empty()) {
            let _ = open.parts.send((Err(String::from_utf8_lossy(&frame.body).into_owned()), None));
        }
        // However fast it was, a script that streams is not one to queue behind.
        drop(self.dispatcher.finish(self.worker_id, id, f64::INFINITY));
        Ok(())
    }

    /// Answers the requests that the worker had started when it was lost.
    async fn settle(&self, started: Vec<Submission>, problem: Option<String>) {
        let cause = self.dispatcher.exit_cause(self.worker, EXIT_CAUSE_PATIENCE).await;
        let cause = cause.unwrap_or_else(|| match problem {
            Some(problem) => format!("was disconnected because the server could not read its reply: {problem}"),
            None => "closed its connection".to_owned(),
        });
        if let Some(open) = self.stream.take() {
            log::error!(target: "azmlinfsrv.front", "Worker {} {cause} in the middle of a streamed reply", self.worker);
            let _ = open.parts.send((Err(cause.clone()), None));
        }
        for job in started {
            job.answer(Answer::Lost { pid: self.pid, cause: cause.clone() });
        }
    }
}
