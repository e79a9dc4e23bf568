//! What the record of a request says, for each way in which a request can end.
//!
//! The front serves real connections; a worker made of a task answers as the request's body says.

#![allow(clippy::disallowed_methods)] // A test fails if one of its tasks does not do its work.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{rt::System, web, HttpResponse};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

use super::{accept_clients, routes, Front, Listener};
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
        record::{Delivery, Outcome, Refusal, RequestRecord, Run, Stage},
        recorder::{Reader, Recorder},
    },
};

/// What a reader was told about requests, as far as these tests look.
#[derive(Default)]
struct Diary {
    begun: Cell<usize>,
    answered: Cell<usize>,
    finished: RefCell<Vec<Ending>>,
}

/// A finished record.
#[derive(Debug, Clone, PartialEq)]
struct Ending {
    outcome: Outcome,
    status: Option<u16>,
    delivery: Delivery,
    run: Option<Run>,
    sizes: (u64, u64),
    has_times: [bool; 4],
}

struct Writer(Rc<Diary>);

impl Reader for Writer {
    fn begun(&self, _: &mut RequestRecord) {
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
struct World {
    front: Rc<Front>,
    channel: ThreadChannel,
    address: std::net::SocketAddr,
    diary: Rc<Diary>,
    /// Jobs that the worker has started.
    started: Rc<Cell<usize>>,
    /// How often the handler of a request is polled before it is dropped.
    dropped_after: Rc<Cell<usize>>,
    _supervisor: StdLine,
}

fn settings() -> Settings {
    let second = Duration::from_secs(1);
    Settings {
        server_version: String::new(),
        cors_origins: String::new(),
        max_queue: 10,
        max_request_size: 1000,
        queue_timeout: Duration::ZERO,
        max_buffered: 1 << 30,
        client_timeout: 30 * second,
        min_body_rate: 0,
        keep_alive: 75 * second,
        max_requests: 0,
        max_worker_rss: 0,
        graceful_timeout: 30 * second,
        worker_timeout: Duration::ZERO,
        scoring_timeout: Duration::ZERO,
        telemetry: Default::default(),
        metrics_on_all_ports: false,
    }
}

impl World {
    async fn new(settings: Settings) -> Self {
        let diary = Rc::<Diary>::default();
        let (line, _supervisor) = StdLine::pair().expect("a pair");
        line.set_nonblocking(true).expect("a socket");
        let supervisor = Supervisor::new(line).expect("a line");
        let recorder = Recorder::new(vec![Box::new(Writer(diary.clone()))]);
        let front = Front::new(settings, Store::default(), supervisor, recorder).expect("valid settings");
        let channel = ThreadChannel::default();
        let entrance = Entrance::Threads(channel.entrance().expect("the first front"));
        spawn_local(transport::accept(entrance, front.dispatcher.clone()));
        spawn_local(front.dispatcher.clone().keep_time());
        spawn_local(front.clone().watch());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let dropped_after = Rc::new(Cell::new(usize::MAX));
        let exposure = super::Exposure { metrics: None, first_process: 0 };
        let handler = {
            let (front, polls) = (front.clone(), dropped_after.clone());
            move |request, payload: web::Payload| {
                let future = Some(Box::pin(routes::handle(front.clone(), exposure, request, payload.into_inner())));
                DroppedAfter { future, polls: polls.get() }
            }
        };
        spawn_local(accept_clients(front.clone(), Listener::Tcp(listener), handler));
        Self { front, channel, address, diary, started: Rc::default(), dropped_after, _supervisor }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the front listens")
    }

    /// Starts a worker, and waits until it takes jobs.
    async fn start_worker(&self) {
        spawn_local(work(self.channel.connect().expect("the front is there"), self.started.clone()));
        self.until(|| self.front.dispatcher.ready_workers() > 0).await;
    }

    /// Waits for something that is bound to happen.
    async fn until(&self, happened: impl Fn() -> bool) {
        let patience = async {
            while !happened() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), patience).await.expect("it happens in time");
    }

    /// The only record, once it is finished.
    async fn ending(&self) -> Ending {
        self.until(|| !self.diary.finished.borrow().is_empty()).await;
        assert_eq!((self.diary.begun.get(), self.diary.answered.get()), (1, 1));
        let mut finished = self.diary.finished.take();
        assert_eq!(finished.len(), 1);
        finished.remove(0)
    }

    /// Ends the connections of all clients, as a reset would.
    fn cut_connections(&self) {
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
        wants_request: false,
        follows_traces: false,
        capacity: 1,
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
        b"refuse" => reply(head(400, Origin::ServerError), b"{}"),
        b"unsendable" => reply(head(99, Origin::Response), b"{}"),
        b"large" => reply(head(200, Origin::Response), &[b'x'; 4 << 20]),
        b"stream" => stream(b""),
        b"fail in a stream" => stream(b"it failed"),
        _ => reply(head(200, Origin::Result), b"{}"),
    }
    Life::GoesOn
}

fn send(end: &WorkerEnd, head: Bytes, body: Bytes) {
    let frame = Frame::from_parts(head, body).expect("a frame");
    assert!(end.try_send(frame).is_none(), "the front takes frames");
}

fn score(body: &str) -> String {
    format!("POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Sends a request to a front with a worker, reads what comes until the end of the connection, and returns the record.
async fn ending_of(settings: Settings, request: &str) -> Ending {
    let world = World::new(settings).await;
    world.start_worker().await;
    let mut client = world.connect().await;
    client.write_all(request.as_bytes()).await.expect("the front reads");
    let read = spawn_local(async move { client.read_to_end(&mut Vec::new()).await });
    let ending = world.ending().await;
    read.abort();
    ending
}

const COMPLETE: Delivery = Delivery::Complete;

/// The record of an answered request that did not become a job.
fn without_job(outcome: Outcome, status: u16, sizes: (u64, u64)) -> Ending {
    Ending { outcome, status: Some(status), delivery: COMPLETE, run: None, sizes, has_times: [false; 4] }
}

#[test]
fn requests_that_the_front_answers_by_itself() {
    use Refusal::*;
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let post = |fields: &str, body: &str| format!("POST /score HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}");
    let long = "x".repeat(101);
    let cases = [
        (get("/", ""), Outcome::Answered, 200, 7),
        (get("/livez", ""), Outcome::Answered, 200, 5),
        (get("/readyz", ""), Outcome::Answered, 200, 5),
        (get("/swagger.json", ""), Outcome::Answered, 200, 2),
        ("OPTIONS /swagger.json HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Outcome::Answered, 200, 0),
        ("OPTIONS /score HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Outcome::Answered, 200, 0),
        // The reply to a HEAD has no body.
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Outcome::Answered, 200, 0),
        ("HEAD /score HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Outcome::Refused(Method), 405, 0),
        (get("/swagger.json?version=9", ""), Outcome::Refused(SwaggerVersion), 404, 1),
        (get("/nope", ""), Outcome::Refused(NotFound), 404, 1),
        ("PUT /score HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Outcome::Refused(Method), 405, 1),
        (get("/score", "Upgrade: websocket\r\n"), Outcome::Refused(WebSocket), 400, 1),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Outcome::Refused(NotFound), 404, 1),
        (get("/score", &format!("x-request-id: {long}\r\n")), Outcome::Refused(IdTooLong), 431, 1),
        (get("/score", "Expect: x\r\n"), Outcome::Refused(Expectation), 417, 1),
        (post("Content-Length: 1001\r\n", ""), Outcome::Refused(BodyTooLarge), 413, 1),
        (post("Transfer-Encoding: chunked\r\n", "x\r\n"), Outcome::Refused(BodyInvalid), 400, 1),
        ("nonsense\r\n\r\n".to_owned(), Outcome::Refused(NotHttp), 400, 1),
        (get("x", ""), Outcome::Refused(Target), 400, 1),
        (get(&format!("/{}", "x".repeat(70_000)), ""), Outcome::Refused(HeadTooLarge), 414, 1),
        (post("Transfer-Encoding: brotli\r\n", ""), Outcome::Refused(UnknownCoding), 501, 1),
    ];
    System::new().block_on(async {
        for (request, outcome, status, least_sent) in cases {
            let ending = ending_of(settings(), &request).await;
            let sent = ending.sizes.1;
            assert!(sent >= least_sent && (least_sent > 0 || sent == 0), "{request} {sent}");
            assert_eq!(ending, without_job(outcome, status, (0, sent)), "{request}");
        }
    });
}

#[test]
fn requests_that_a_worker_answers() {
    use Refusal::*;
    let cases = [
        ("ok", Outcome::Answered, 200, Some(Run::Ok), 2),
        ("raise", Outcome::ScriptError, 500, Some(Run::Error), 2),
        ("be late", Outcome::Timeout, 500, Some(Run::Timeout), 2),
        ("refuse", Outcome::Refused(Unusable), 400, None, 2),
        ("stream", Outcome::Answered, 200, Some(Run::Ok), 4),
        ("large", Outcome::Answered, 200, Some(Run::Ok), 4 << 20),
    ];
    System::new().block_on(async {
        for (body, outcome, status, run, sent) in cases {
            let sizes = (body.len() as u64, sent);
            let expected =
                Ending { outcome, status: Some(status), delivery: COMPLETE, run, sizes, has_times: [true; 4] };
            assert_eq!(ending_of(settings(), &score(body)).await, expected, "{body}");
        }
        let ending = ending_of(settings(), &score("unsendable")).await;
        assert_eq!((ending.outcome, ending.status), (Outcome::Refused(Internal), Some(500)));
        let ending = ending_of(settings(), &score("fail in a stream")).await;
        assert_eq!((ending.outcome, ending.delivery), (Outcome::Answered, Delivery::BrokenOff));
        assert_eq!(ending.has_times, [true; 4]);
        let ending = ending_of(settings(), &score("die")).await;
        assert_eq!((ending.outcome, ending.status), (Outcome::WorkerLost, Some(500)));
        assert_eq!(ending.run, Some(Run::Lost));
        let settings = Settings { worker_timeout: Duration::from_millis(10), ..settings() };
        let ending = ending_of(settings, &score("hang")).await;
        assert_eq!((ending.outcome, ending.status), (Outcome::Timeout, Some(500)));
        assert_eq!((ending.run, ending.has_times), (Some(Run::Timeout), [true; 4]));
    });
}

#[test]
fn requests_that_no_worker_gets() {
    use Refusal::*;
    let health = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    type Case = (&'static str, Settings, String, fn(&World), Refusal, u16);
    let short = Settings { queue_timeout: Duration::from_millis(10), ..settings() };
    let hasty = Settings { client_timeout: Duration::from_millis(10), ..settings() };
    let full = Settings { max_queue: 0, ..settings() };
    let incomplete = "POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab";
    let cases: [Case; 7] = [
        ("no worker", settings(), health.to_owned(), |_| (), NotReady, 503),
        ("the queue is full", full, score(""), |_| (), QueueFull, 503),
        ("--queue_timeout", short, score(""), |_| (), QueueTimeout, 503),
        ("--client_timeout in the head", hasty.clone(), "GET".to_owned(), |_| (), HeadTimeout, 408),
        ("--client_timeout in the body", hasty, incomplete.to_owned(), |_| (), BodyTooSlow, 408),
        ("late", settings(), score(""), |world| world.front.end_connections(), Draining, 503),
        ("stop", settings(), score(""), |world| world.front.dispatcher.stop(), Stopped, 503),
    ];
    System::new().block_on(async {
        for (case, settings, request, prepare, refusal, status) in cases {
            let world = World::new(settings).await;
            let mut client = world.connect().await;
            world.until(|| !world.front.connections.borrow().is_empty()).await;
            prepare(&world);
            client.write_all(request.as_bytes()).await.expect("the front reads");
            let ending = world.ending().await;
            assert_eq!((ending.outcome, ending.status), (Outcome::Refused(refusal), Some(status)), "{case}");
            assert_eq!(ending.delivery, COMPLETE, "{case}");
        }
    });
}

#[test]
fn requests_whose_connection_breaks() {
    let arriving = "POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab".to_owned();
    let cases = [
        // What was sent; how many jobs the worker has then; what the record says.
        (arriving, false, Outcome::Abandoned, None, Stage::Arriving),
        (score("queued"), false, Outcome::Abandoned, None, Stage::Queued),
        ("GET /swagger.json HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), false, Outcome::Abandoned, None, Stage::Queued),
        (score("hang"), true, Outcome::Timeout, Some(500), Stage::Running),
        (score("begin a stream"), true, Outcome::Answered, Some(200), Stage::Replying),
        (score("large"), true, Outcome::Answered, Some(200), Stage::Replying),
    ];
    System::new().block_on(async {
        for (request, has_worker, outcome, status, stage) in cases {
            let world = World::new(Settings { worker_timeout: Duration::from_millis(300), ..settings() }).await;
            if has_worker {
                world.start_worker().await;
            }
            let mut client = world.connect().await;
            client.write_all(request.as_bytes()).await.expect("the front reads");
            // A handler that has begun has run until it has to wait.
            world.until(|| world.diary.begun.get() == 1).await;
            match stage {
                Stage::Arriving => {}
                Stage::Queued if request.starts_with("GET /swagger.json") => {}
                Stage::Queued => world.until(|| world.front.dispatcher.queued() == 1).await,
                Stage::Running => world.until(|| world.started.get() == 1).await,
                Stage::Replying => world.until(|| world.diary.answered.get() == 1).await,
            }
            world.cut_connections();
            let ending = world.ending().await;
            assert_eq!((ending.outcome, ending.status), (outcome, status), "{request}");
            assert_eq!(ending.delivery, Delivery::ClientLeft(stage), "{request}");
        }
    });
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

#[test]
fn a_handler_that_is_dropped_at_any_time_has_one_record() {
    System::new().block_on(async {
        let settings = Settings { worker_timeout: Duration::from_millis(50), ..settings() };
        for body in ["ok", "raise", "stream", "hang"] {
            let mut answered = false;
            for polls in 1..100 {
                let world = World::new(settings.clone()).await;
                world.dropped_after.set(polls);
                let mut client = world.connect().await;
                let request = score(body);
                let (first, rest) = request.as_bytes().split_at(request.len() - 1);
                client.write_all(first).await.expect("the front reads");
                world.until(|| world.diary.begun.get() == 1).await;
                client.write_all(rest).await.expect("the front reads");
                world.start_worker().await;
                // The front closes the connection of a handler that has not read the body.
                let mut reply = [0; 12];
                client.read_exact(&mut reply).await.expect("a reply");
                drop(client);
                let ending = world.ending().await;
                answered = !reply.ends_with(b"418");
                let before = matches!(ending.delivery, Delivery::ClientLeft(stage) if stage != Stage::Replying);
                assert_eq!(before, !answered, "{body} {polls} {ending:?}");
                if answered {
                    break;
                }
            }
            assert!(answered, "{body}");
        }
    });
}
