//! The socket to one worker process: accepting it, reading its frames, writing jobs to it.
//!
//! Runs in the front's event loop, one task per connected worker. A job is written by whoever assigns it, at once, with
//! one vectored write; only what the socket does not take waits in the outbox for the writer task.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    path::Path,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, Notify, OwnedSemaphorePermit, Semaphore},
};

use super::{Answer, Dispatcher, Submission};
use crate::{
    claims::Claims,
    frame::{self, Decoder, Frame, Hello, Kind, ReplyHead},
};

/// How long a client of a lost request waits for the supervisor to say what happened to the worker.
const EXIT_CAUSE_PATIENCE: Duration = Duration::from_millis(500);
/// A peer that does not say hello within this time is not one of our workers.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a stream that wait for a slow client before its worker has to wait too.
const STREAM_BUFFER: u32 = 1 << 20;
/// Read buffer growth.
const READ_SIZE: usize = 64 * 1024;

/// The sending side of a worker's socket.
pub struct Link {
    stream: UnixStream,
    outbox: RefCell<VecDeque<Bytes>>,
    outbox_filled: Notify,
    closed: Cell<bool>,
    close: Notify,
}

impl Link {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            outbox: RefCell::default(),
            outbox_filled: Notify::new(),
            closed: Cell::new(false),
            close: Notify::new(),
        }
    }

    /// True if the kernel has taken everything sent so far.
    pub fn is_flushed(&self) -> bool {
        self.outbox.borrow().is_empty()
    }

    /// Sends the parts of one frame in order. Never blocks; errors show at the reading side, as the loss of the worker.
    pub fn send(&self, head: Bytes, body: Bytes) {
        let mut parts = [head, body];
        let mut outbox = self.outbox.borrow_mut();
        if outbox.is_empty() {
            write_now(&self.stream, &mut parts);
        }
        let left_over = parts.into_iter().filter(|part| !part.is_empty());
        let before = outbox.len();
        outbox.extend(left_over);
        if outbox.len() > before {
            self.outbox_filled.notify_one();
        }
    }

    /// Ends the reading task: the process behind the socket is known to be gone.
    pub fn close(&self) {
        self.closed.set(true);
        self.close.notify_one();
    }

    /// Writes what [`Link::send`] could not; runs beside the reading task for as long as the worker is connected.
    async fn flush_outbox(&self) -> io::Result<()> {
        loop {
            self.outbox_filled.notified().await;
            while !self.is_flushed() {
                self.stream.writable().await?;
                let mut outbox = self.outbox.borrow_mut();
                let written = {
                    let slices: Vec<IoSlice<'_>> = outbox.iter().take(64).map(|part| IoSlice::new(part)).collect();
                    match self.stream.try_write_vectored(&slices) {
                        Ok(written) => written,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        Err(error) => return Err(error),
                    }
                };
                advance(&mut outbox, written);
            }
        }
    }
}

/// One attempt to write `parts`; advances them past what was written.
fn write_now(stream: &UnixStream, parts: &mut [Bytes; 2]) {
    while parts.iter().any(|part| !part.is_empty()) {
        let slices = [IoSlice::new(&parts[0]), IoSlice::new(&parts[1])];
        let written = match stream.try_write_vectored(&slices) {
            Ok(written) => written,
            // Full, or broken: then the reading task notices as well, and it is the one that handles the loss.
            Err(_) => return,
        };
        let from_head = written.min(parts[0].len());
        parts[0].advance(from_head);
        parts[1].advance(written - from_head);
    }
}

fn advance(outbox: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = outbox.front_mut() {
        if written < front.len() {
            front.advance(written);
            return;
        }
        written -= front.len();
        outbox.pop_front();
    }
}

/// Accepts workers for ever.
pub async fn accept_workers(listener: UnixListener, dispatcher: Dispatcher) {
    let folder = listener.local_addr().ok().and_then(|address| Some(address.as_pathname()?.parent()?.to_owned()));
    let folder: Rc<Path> = folder.unwrap_or_default().into();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(serve_worker(stream, folder.clone(), dispatcher.clone()));
            }
            Err(error) => {
                log::error!(target: "azmlinfsrv.front", "Cannot accept a worker: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Reads frames from one worker until it is gone, then settles what it leaves behind.
async fn serve_worker(stream: UnixStream, folder: Rc<Path>, dispatcher: Dispatcher) {
    let mut reader = Frames::new(stream, dispatcher.max_body_len);
    let hello = match tokio::time::timeout(HELLO_PATIENCE, reader.next()).await {
        Ok(Ok(Some(frame))) => match accepted_hello(&frame) {
            Ok(hello) => hello,
            Err(reason) => return log::error!(target: "azmlinfsrv.front", "Refused a worker: {reason}"),
        },
        // It died or hung before it was ready; the supervisor reports its end.
        _ => return,
    };
    let pid = hello.pid;
    let claims = open_claims(&folder, &hello.claims);
    let worker_id = dispatcher.join(hello, reader.link.clone(), claims);
    let session = Session { dispatcher: &dispatcher, worker_id, pid, stream: RefCell::new(None) };
    let link = reader.link.clone();
    let ended = tokio::select! {
        ended = session.read_frames(&mut reader) => ended,
        ended = link.flush_outbox() => ended.map_err(|error| error.to_string()),
    };
    if let Err(problem) = ended {
        log::debug!(target: "azmlinfsrv.front", "Connection to worker {pid} broke: {problem}");
    }
    session.settle(dispatcher.leave(worker_id)).await;
}

/// The counter that the worker has made. Without it the worker gets one job at a time, which is slower and no less right.
fn open_claims(folder: &Path, name: &str) -> Option<Claims> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    Claims::open(&folder.join(name))
        .inspect_err(|error| log::warn!(target: "azmlinfsrv.front", "Cannot share a counter with a worker: {error}"))
        .ok()
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

/// The reading side of a worker's socket.
struct Frames {
    link: Rc<Link>,
    decoder: Decoder,
    buffer: BytesMut,
}

impl Frames {
    fn new(stream: UnixStream, max_body_len: u64) -> Self {
        Self {
            link: Rc::new(Link::new(stream)),
            decoder: Decoder { max_body_len },
            buffer: BytesMut::with_capacity(READ_SIZE),
        }
    }

    /// The next frame; `None` when the worker is gone and everything it sent has been read.
    async fn next(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).map_err(|error| error.to_string())? {
                return Ok(Some(frame));
            }
            if self.buffer.capacity() - self.buffer.len() < READ_SIZE / 4 {
                self.buffer.reserve(READ_SIZE);
            }
            match self.link.stream.try_read_buf(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A worker that died with jobs unread resets the connection instead of closing it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
            if self.link.closed.get() {
                return Ok(None);
            }
            tokio::select! {
                readable = self.link.stream.readable() => readable.map_err(|error| error.to_string())?,
                () = self.link.close.notified() => {}
            }
        }
    }
}

/// A part of a stream on its way to the client, and the room it takes until the client has it.
pub type Part = (Result<Bytes, String>, Option<OwnedSemaphorePermit>);

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
    pid: u32,
    /// The stream that the worker is in the middle of, and whose client still listens.
    stream: RefCell<Option<OpenStream>>,
}

impl Session<'_> {
    async fn read_frames(&self, reader: &mut Frames) -> Result<(), String> {
        while let Some(frame) = reader.next().await? {
            self.handle(frame, &reader.link).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn handle(&self, frame: Frame, link: &Link) -> Result<(), frame::FrameError> {
        match frame.kind {
            Kind::Reply => {
                let head = ReplyHead::decode(&frame)?;
                if let Some(job) = self.dispatcher.finish(self.worker_id, head.id, head.busy_ms) {
                    job.answer(Answer::Whole { head, body: frame.body, pid: self.pid });
                }
            }
            Kind::StreamStart => self.start_stream(ReplyHead::decode(&frame)?, link),
            Kind::StreamChunk => self.forward(frame::decode_id(&frame)?, frame.body, link).await,
            Kind::StreamEnd => self.end_stream(&frame)?,
            Kind::Goodbye => self.dispatcher.give_back(self.worker_id),
            Kind::Skipped => self.dispatcher.skipped(self.worker_id),
            Kind::Hello => self.dispatcher.renew(self.worker_id, Hello::decode(&frame)?),
            Kind::Job | Kind::Cancel | Kind::Retire => {
                return Err(frame::FrameError::Malformed("message of a worker"));
            }
        }
        Ok(())
    }

    /// The job stays the worker's running one until the stream has ended.
    fn start_stream(&self, head: ReplyHead, link: &Link) {
        let (sender, parts) = mpsc::unbounded_channel();
        let id = head.id;
        let answer = Answer::Stream { head, parts, pid: self.pid };
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

    /// Answers the request that the worker was running when it was lost.
    async fn settle(&self, running: Option<Submission>) {
        let cause = self.dispatcher.exit_cause(self.pid, EXIT_CAUSE_PATIENCE).await;
        let cause = cause.unwrap_or_else(|| "closed its connection".to_owned());
        let pid = self.pid;
        if let Some(open) = self.stream.take() {
            log::error!(target: "azmlinfsrv.front", "Worker {pid} {cause} in the middle of a streamed reply");
            let _ = open.parts.send((Err(cause.clone()), None));
        }
        if let Some(job) = running {
            job.answer(Answer::Lost { pid, cause });
        }
    }
}
