//! Tests of `exporter.rs`, against receivers that listen on loopback.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use bytes::Bytes;

use super::*;
use crate::telemetry::{
    app_insights::Origin, counts::Counts, http_client::TlsFiles, lane::BATCH_ITEMS, receiver::Format,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Answers each request with the next of these responses, the last one for ever. An empty response means that it never
/// answers. Returns its URL and the bodies that it gets.
fn receiver(responses: Vec<&'static str>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        let mut responses = responses.into_iter().peekable();
        let mut held = Vec::new();
        for stream in listener.incoming().flatten() {
            let Some(body) = read_request(&stream) else { continue };
            let Some(response) = (match responses.len() {
                1 => responses.peek().copied(),
                _ => responses.next(),
            }) else {
                return;
            };
            if sender.send(body).is_err() {
                return;
            }
            if response.is_empty() {
                held.push(stream);
            } else {
                let _ = (&stream).write_all(response.as_bytes());
            }
        }
    });
    (url, bodies)
}

fn read_request(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

fn plan(url: &str) -> Plan {
    let target = Target {
        format: Format::AppInsights(Origin::default()),
        url: url.to_owned(),
        headers: Vec::new(),
        timeout: PATIENCE,
        gzip: false,
        tls: TlsFiles::default(),
        batch_items: BATCH_ITEMS,
        queue_items: usize::MAX,
    };
    Plan { targets: vec![target], interval: Duration::from_millis(1), storage: None }
}

fn start(plan: Plan) -> Exporter {
    Exporter::start(plan, Intake::default(), AllCounts::local()).expect("a thread").expect("a receiver")
}

fn push(exporter: &Exporter, text: &str) {
    exporter.intake().push(Item::Log(Bytes::from(format!("{{\"message\": \"{text}\"}}"))));
}

fn counts(exporter: &Exporter) -> Counts {
    exporter.shared.lock().receivers[0].counts()
}

#[test]
fn items_arrive_and_a_busy_receiver_gets_them_again() {
    let (url, bodies) = receiver(vec![BUSY, OK]);
    let exporter = start(plan(&url));
    push(&exporter, "hello");
    for _ in 0..2 {
        assert!(bodies.recv_timeout(PATIENCE).expect("a body").contains("hello"));
    }
    let counts = counts(&exporter);
    exporter.finish();
    assert_eq!((counts.sent(), counts.all_dropped()), (1, 0));
}

#[test]
fn a_redirect_is_followed_and_remembered() {
    let (url, bodies) = receiver(vec![OK]);
    let moved = format!("HTTP/1.1 308 Moved\r\nlocation: {url}/x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let (first, redirected) = receiver(vec![moved.leak()]);
    let exporter = start(plan(&first));
    push(&exporter, "one");
    assert!(bodies.recv_timeout(PATIENCE).expect("a body").contains("one"));
    push(&exporter, "two");
    assert!(bodies.recv_timeout(PATIENCE).expect("a body").contains("two"));
    exporter.finish();
    assert_eq!(redirected.try_iter().count(), 1);
}

#[test]
fn the_end_sends_what_waits() {
    let (url, bodies) = receiver(vec![OK]);
    let exporter = start(Plan { interval: Duration::from_secs(3600), ..plan(&url) });
    push(&exporter, "last words");
    let counts = counts(&exporter);
    exporter.finish();
    assert!(bodies.try_recv().expect("a body").contains("last words"));
    assert_eq!((counts.sent(), counts.all_dropped()), (1, 0));
}

#[test]
fn a_receiver_that_never_answers_cannot_keep_the_server_and_what_is_lost_is_counted() {
    let (url, bodies) = receiver(vec![""]);
    let exporter = start(plan(&url));
    push(&exporter, "one");
    bodies.recv_timeout(PATIENCE).expect("the receiver has it, and does not answer");
    push(&exporter, "two");
    let (counts, asked) = (counts(&exporter), Instant::now());
    exporter.finish();
    assert!(asked.elapsed() >= STOP_PATIENCE, "it gave up early");
    assert_eq!((counts.sent(), counts.dropped(Reason::Stopped)), (0, 2));
}

#[test]
fn memory_is_bounded_while_nothing_can_be_sent() {
    let (url, bodies) = receiver(vec![""]);
    let exporter = start(plan(&url));
    push(&exporter, "first");
    bodies.recv_timeout(PATIENCE).expect("the receiver has it, and does not answer");
    let text = "x".repeat(30_000);
    for _ in 0..1000 {
        push(&exporter, &text);
    }
    let counts = counts(&exporter);
    exporter.finish();
    assert!(counts.dropped(Reason::Full) > 700, "{counts:?}");
    assert_eq!(counts.all_dropped(), 1001);
}

#[test]
fn stored_items_are_sent_by_the_next_server_after_its_first_success() {
    let folder = std::env::temp_dir().join(format!("azmlinfsrv-exporter-{}", uuid::Uuid::new_v4()));
    let (url, bodies) = receiver(vec![BUSY]);
    let exporter = start(Plan { storage: Some(folder.clone()), ..plan(&url) });
    push(&exporter, "stored");
    bodies.recv_timeout(PATIENCE).expect("a body");
    let first = counts(&exporter);
    exporter.finish();
    assert_eq!((first.sent(), first.all_dropped()), (0, 0));

    let (url, bodies) = receiver(vec![OK]);
    let exporter = start(Plan { storage: Some(folder.clone()), ..plan(&url) });
    push(&exporter, "new");
    let bodies = [0; 2].map(|_| bodies.recv_timeout(PATIENCE).expect("a body"));
    assert!(bodies[0].contains("new") && bodies[1].contains("stored"), "{bodies:?}");
    let second = counts(&exporter);
    exporter.finish();
    assert_eq!((second.sent(), second.all_dropped()), (2, 0));
    let left: Vec<_> = std::fs::read_dir(folder.join("azmlinfsrv-telemetry")).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::remove_dir_all(folder).expect("removed");
}
