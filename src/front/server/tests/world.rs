//! A front that serves real connections, and a worker made of a task.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{web, HttpResponse};
use bytes::Bytes;
use tokio::{net::TcpStream, task::spawn_local};

use super::super::{accept_clients, routes, Exposure, Front, Listener, Purpose};
use crate::{
    dispatch::transport::{self, Entrance},
    ipc::{
        body::Store,
        control::{StdLine, Supervisor},
        frame::{self, Frame, Hello, Job, Kind, Origin, ReplyHead},
        thread_channel::{Taken, ThreadChannel, WorkerEnd},
    },
    settings::Settings,
    telemetry::{
        record::{Delivery, Outcome, RequestRecord, Run},
        recorder::{Reader, Recorder},
        trace_context::Span,
    },
};

/// What a reader was told about requests, as far as these tests look.
#[derive(Default)]
pub(super) struct Diary {
    pub(super) begun: Cell<usize>,
    pub(super) answered: Cell<usize>,
    pub(super) finished: RefCell<Vec<Ending>>,
}

/// A finished record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) status: Option<u16>,
    pub(super) delivery: Delivery,
    pub(super) run: Option<Run>,
    pub(super) sizes: (u64, u64),
    pub(super) has_times: [bool; 4],
}

struct Writer(Rc<Diary>);

impl Reader for Writer {
    fn begun(&self, record: &mut RequestRecord) {
        record.span = record.parent.map(|parent| Span { span_id: [0xab; 8], ..parent.into() });
        self.0.begun.set(self.0.begun.get() + 1);
    }

    fn answered(&self, record: &RequestRecord) {
        assert!(record.answered.is_some() && record.finished.is_none());
        self.0.answered.set(self.0.answered.get() + 1);
    }

    fn finished(&self, record: &RequestRecord) {
        let job = &record.job;
        let times = [job.queued, job.sent, job.started, job.ended];
        let known: Vec<_> = times.into_iter().flatten().collect();
        assert!(known.is_sorted(), "{job:?}");
        assert!(known.iter().all(|time| record.began <= *time && Some(*time) <= record.finished), "{record:?}");
        self.0.finished.borrow_mut().push(Ending {
            outcome: record.outcome,
            status: record.status,
            delivery: record.delivery,
            run: record.run,
            sizes: (record.bytes_in, record.bytes_out),
            has_times: times.map(|time| time.is_some()),
        });
    }
}

/// A front with its listener, and where its worker connects.
pub(super) struct World {
    pub(super) front: Rc<Front>,
    pub(super) channel: ThreadChannel,
    pub(super) address: std::net::SocketAddr,
    pub(super) diary: Rc<Diary>,
    /// Jobs that the worker has started.
    pub(super) started: Rc<Cell<usize>>,
    /// How often the handler of a request is polled before it is dropped.
    pub(super) dropped_after: Rc<Cell<usize>>,
    _supervisor: StdLine,
}

/// Both ends of what connects the front and the supervisor.
#[cfg(unix)]
fn pair() -> std::io::Result<(StdLine, StdLine)> {
    StdLine::pair()
}

/// Both ends of what connects the front and the supervisor, made as Python's `socket.socketpair()` makes them on Windows.
#[cfg(not(unix))]
fn pair() -> std::io::Result<(StdLine, StdLine)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let near = StdLine::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    Ok((near, far))
}

impl World {
    pub(super) async fn new(settings: Settings) -> Self {
        let diary = Rc::<Diary>::default();
        let (line, _supervisor) = pair().expect("a pair");
        line.set_nonblocking(true).expect("a socket");
        let supervisor = Supervisor::new(line).expect("a line");
        let recorder = Recorder::new(vec![Box::new(Writer(diary.clone()))]);
        let front = Front::new(settings, Store::default(), supervisor, recorder, None).expect("valid settings");
        let channel = ThreadChannel::default();
        let entrance = Entrance::Threads(channel.entrance().expect("the first front"));
        spawn_local(transport::accept(entrance, front.dispatcher.clone()));
        spawn_local(front.dispatcher.clone().keep_time());
        spawn_local(front.clone().watch());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let dropped_after = Rc::new(Cell::new(usize::MAX));
        let exposure = Exposure { metrics: None, first_process: 0 };
        let handler = {
            let (front, polls) = (front.clone(), dropped_after.clone());
            move |request, payload: web::Payload| {
                let future = Some(Box::pin(routes::handle(front.clone(), exposure, request, payload.into_inner())));
                DroppedAfter { future, polls: polls.get() }
            }
        };
        let listener = Listener::new(listener, Purpose::All).expect("an address");
        spawn_local(accept_clients(front.clone(), listener, handler));
        Self { front, channel, address, diary, started: Rc::default(), dropped_after, _supervisor }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the front listens")
    }

    /// Starts a worker, and waits until it takes jobs.
    pub(super) async fn start_worker(&self) {
        spawn_local(work(self.channel.connect().expect("the front is there"), self.started.clone()));
        self.until(|| self.front.dispatcher.ready_workers() > 0).await;
    }

    /// Waits for something that is bound to happen.
    pub(super) async fn until(&self, happened: impl Fn() -> bool) {
        let patience = async {
            while !happened() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), patience).await.expect("it happens in time");
    }

    /// The only record, once it is finished.
    pub(super) async fn ending(&self) -> Ending {
        self.until(|| !self.diary.finished.borrow().is_empty()).await;
        assert_eq!((self.diary.begun.get(), self.diary.answered.get()), (1, 1));
        let mut finished = self.diary.finished.take();
        assert_eq!(finished.len(), 1);
        finished.remove(0)
    }

    /// Ends the connections of all clients, as a reset would.
    pub(super) fn cut_connections(&self) {
        self.front.connections.borrow().values().filter_map(|open| open.task.as_ref()).for_each(|task| task.abort());
    }
}

/// A worker that does what the body of each job says.
async fn work(end: WorkerEnd, started: Rc<Cell<usize>>) {
    let hello = Hello {
        protocol: frame::PROTOCOL_VERSION,
        worker: 1,
        pid: 1,
        shares_claims: true,
        shares_bodies: false,
        raw: false,
        wants_request: true,
        follows_traces: false,
        capacity: 1,
        batch: 1,
        concurrent: false,
        cancels: false,
        model: String::new(),
        swagger: [("2".to_owned(), "{}".to_owned())].into(),
    };
    send(&end, hello.encode().expect("JSON").freeze(), Bytes::new());
    let mut received = 0;
    loop {
        let frame = match end.take() {
            Taken::Frame(frame) => frame,
            Taken::Nothing => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            Taken::Closed => return,
        };
        if frame.kind != Kind::Job {
            continue;
        }
        if end.claims.claim(received) {
            started.set(started.get() + 1);
            if obey(&end, &frame) == Life::Over {
                return;
            }
        }
        received += 1;
    }
}

#[derive(PartialEq)]
enum Life {
    GoesOn,
    Over,
}

fn obey(end: &WorkerEnd, frame: &Frame) -> Life {
    let job = Job::decode(frame).expect("a job");
    let head = |status, origin| ReplyHead { id: job.id, status, origin, run_ms: Some(0.0), ..Default::default() };
    let reply = |head: ReplyHead, body: &'static [u8]| {
        send(end, head.encode(Kind::Reply, body.len()).expect("small"), Bytes::from_static(body));
    };
    let stream = |reason: &'static [u8]| {
        send(end, head(200, Origin::Response).encode(Kind::StreamStart, 0).expect("small"), Bytes::new());
        send(end, frame::encode_with_id(Kind::StreamChunk, job.id, 4), Bytes::from_static(b"part"));
        send(end, frame::encode_with_id(Kind::StreamEnd, job.id, reason.len()), Bytes::from_static(reason));
    };
    match &*frame.body {
        b"hang" => {}
        b"begin a stream" => {
            send(end, head(200, Origin::Response).encode(Kind::StreamStart, 0).expect("small"), Bytes::new());
        }
        b"die" => return Life::Over,
        b"raise" => reply(head(500, Origin::ScriptError), b"{}"),
        b"be late" => reply(head(500, Origin::Timeout), b"{}"),
        // Input that cannot be decoded: run() is not called.
        b"refuse" => reply(ReplyHead { run_ms: None, ..head(400, Origin::ServerError) }, b"{}"),
        b"unsendable" => reply(head(99, Origin::Response), b"{}"),
        b"large" => reply(head(200, Origin::Response), &[b'x'; 4 << 20]),
        b"stream" => stream(b""),
        b"fail in a stream" => stream(b"it failed"),
        b"tell the trace" => {
            let parents = job.fields.iter().filter(|(name, _)| name == "traceparent");
            let told = parents.map(|(_, value)| value.clone()).collect::<Vec<_>>().concat();
            assert_eq!(job.span.map(|span| span.to_string().into_bytes()), Some(told.clone()));
            let head = head(200, Origin::Result).encode(Kind::Reply, told.len()).expect("small");
            send(end, head, told.into());
        }
        _ => reply(head(200, Origin::Result), b"{}"),
    }
    Life::GoesOn
}

fn send(end: &WorkerEnd, head: Bytes, body: Bytes) {
    let frame = Frame::from_parts(head, body).expect("a frame");
    assert!(end.try_send(frame).is_none(), "the front takes frames");
}

/// A handler that is dropped after it has been polled so many times without being ready.
struct DroppedAfter<F> {
    future: Option<Pin<Box<F>>>,
    polls: usize,
}

impl<F: Future<Output = HttpResponse>> Future for DroppedAfter<F> {
    type Output = HttpResponse;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<HttpResponse> {
        let polled = self.future.as_mut().map(|future| future.as_mut().poll(cx));
        if let Some(Poll::Ready(response)) = polled {
            return Poll::Ready(response);
        }
        self.polls -= 1;
        if self.polls > 0 {
            return Poll::Pending;
        }
        self.future = None;
        Poll::Ready(HttpResponse::ImATeapot().finish())
    }
}
