//! What the record of a request says, for each way in which a request can end.
//!
//! `tests/world.rs` has the front and the worker, which answers as the request's body says.

#![allow(clippy::disallowed_methods)] // A test fails if one of its tasks does not do its work.

use std::time::Duration;

use actix_web::rt::System;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::spawn_local,
};

use self::world::{Ending, World};
use crate::{
    settings::Settings,
    telemetry::record::{Delivery, Outcome, Refusal, Run, Stage},
};

mod world;

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
            let ending = ending_of(Settings::for_tests(), &request).await;
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
            assert_eq!(ending_of(Settings::for_tests(), &score(body)).await, expected, "{body}");
        }
        let ending = ending_of(Settings::for_tests(), &score("unsendable")).await;
        assert_eq!((ending.outcome, ending.status), (Outcome::Refused(Internal), Some(500)));
        let ending = ending_of(Settings::for_tests(), &score("fail in a stream")).await;
        assert_eq!((ending.outcome, ending.delivery), (Outcome::Answered, Delivery::BrokenOff));
        assert_eq!(ending.has_times, [true; 4]);
        let ending = ending_of(Settings::for_tests(), &score("die")).await;
        assert_eq!((ending.outcome, ending.status), (Outcome::WorkerLost, Some(500)));
        assert_eq!(ending.run, Some(Run::Lost));
        let settings = Settings { worker_timeout: Duration::from_millis(10), ..Settings::for_tests() };
        let ending = ending_of(settings, &score("hang")).await;
        assert_eq!((ending.outcome, ending.status), (Outcome::Timeout, Some(500)));
        assert_eq!((ending.run, ending.has_times), (Some(Run::Timeout), [true; 4]));
    });
}

#[test]
fn a_script_sees_the_span_of_the_server_in_place_of_its_callers() {
    System::new().block_on(async {
        let world = World::new(Settings::for_tests()).await;
        world.start_worker().await;
        let mut client = world.connect().await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c";
        let request = format!(
            "POST /score HTTP/1.1\r\nHost: a\r\ntraceparent: {trace}-b7ad6b7169203331-01\r\nConnection: close\r\n\
             Content-Length: 14\r\n\r\ntell the trace"
        );
        client.write_all(request.as_bytes()).await.expect("the front reads");
        let mut reply = String::new();
        client.read_to_string(&mut reply).await.expect("text");
        assert!(reply.ends_with(&format!("\r\n\r\n{trace}-abababababababab-01")), "{reply}");
    });
}

#[test]
fn requests_that_no_worker_gets() {
    use Refusal::*;
    let health = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    type Case = (&'static str, Settings, String, fn(&World), Refusal, u16);
    let short = Settings { queue_timeout: Duration::from_millis(10), ..Settings::for_tests() };
    let hasty = Settings { client_timeout: Duration::from_millis(10), ..Settings::for_tests() };
    let full = Settings { max_queue: 0, ..Settings::for_tests() };
    let incomplete = "POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab";
    let cases: [Case; 7] = [
        ("no worker", Settings::for_tests(), health.to_owned(), |_| (), NotReady, 503),
        ("the queue is full", full, score(""), |_| (), QueueFull, 503),
        ("--queue_timeout", short, score(""), |_| (), QueueTimeout, 503),
        ("--client_timeout in the head", hasty.clone(), "GET".to_owned(), |_| (), HeadTimeout, 408),
        ("--client_timeout in the body", hasty, incomplete.to_owned(), |_| (), BodyTooSlow, 408),
        ("late", Settings::for_tests(), score(""), |world| world.front.end_connections(), Draining, 503),
        ("stop", Settings::for_tests(), score(""), |world| world.front.dispatcher.stop(), Stopped, 503),
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
        // Windows' socket takes a reply of any size at once, so it is delivered when the connection breaks.
        #[cfg(unix)]
        (score("large"), true, Outcome::Answered, Some(200), Stage::Replying),
    ];
    System::new().block_on(async {
        for (request, has_worker, outcome, status, stage) in cases {
            let world =
                World::new(Settings { worker_timeout: Duration::from_millis(300), ..Settings::for_tests() }).await;
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

#[test]
fn a_handler_that_is_dropped_at_any_time_has_one_record() {
    System::new().block_on(async {
        let settings = Settings { worker_timeout: Duration::from_millis(50), ..Settings::for_tests() };
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
