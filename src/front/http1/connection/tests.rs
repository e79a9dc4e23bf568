//! What the phases of a connection allow.

use std::future::Future as _;

use super::*;

const PATIENCE: Patience = Patience { client: Duration::from_secs(30), keep_alive: Duration::from_secs(75) };

#[test]
fn a_client_that_does_not_read_is_cut_after_its_time() {
    let connection = Connection::new(false);
    assert!(connection.note_progress(Poll::Pending).is_pending());
    let stalled = Instant::now();
    assert!(!connection.must_be_cut(stalled + Duration::from_secs(29), &PATIENCE));
    assert!(connection.must_be_cut(stalled + Duration::from_secs(31), &PATIENCE));
    assert!(connection.note_progress(Poll::Ready(Ok(1))).is_ready());
    assert!(!connection.has_unread());
}

fn open(connection: &Rc<Connection>, head: &str) -> OpenRequest {
    let mut head = super::super::head::read(head.as_bytes()).expect("valid").expect("complete");
    let has_body = head.body != super::super::head::BodyLength::Known(0);
    connection.open(&mut head, has_body);
    connection.begin_request()
}

#[test]
fn what_follows_a_reply() {
    let plain = "POST / HTTP/1.1\r\nHost: a\r\n";
    type Case = (&'static str, fn(&Connection), After);
    let cases: [Case; 7] = [
        ("", |_| (), After::Next),
        ("Connection: close\r\n", |_| (), After::Close),
        ("Content-Length: 5\r\n", |_| (), After::Close),
        ("Content-Length: 5\r\n", Connection::note_body_read, After::Next),
        ("", Connection::close_after_reply, After::Close),
        ("", Connection::end, After::Close),
        ("", |connection| connection.refuse_body(String::new()), After::Close),
    ];
    for (fields, prepare, after) in cases {
        let connection = Connection::new(false);
        let request = open(&connection, &format!("{plain}{fields}\r\n"));
        prepare(&connection);
        assert_eq!(connection.begin_reply(), after, "{fields}");
        assert!(!connection.note_flushed());
        drop(request);
        assert_eq!(connection.phase(), Phase::Answered(after));
        connection.note_flushed();
        let closes = matches!(connection.phase(), Phase::Closing { .. });
        assert_eq!(closes, after == After::Close, "{fields}");
    }
}

#[test]
fn a_request_that_comes_when_the_server_is_finishing_is_late() {
    let connection = Connection::new(false);
    connection.end();
    assert!(connection.is_late());
    drop(open(&connection, "GET / HTTP/1.0\r\n\r\n"));
    connection.end();
    assert!(connection.is_late());
    let open_then = Connection::new(false);
    let _request = open(&open_then, "GET / HTTP/1.0\r\n\r\n");
    open_then.end();
    assert!(!open_then.is_late());
}

#[test]
fn a_handler_that_the_parser_does_not_call_again_is_woken() {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let connection = Connection::new(false);
    let _open = open(&connection, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n");
    let mut continues = std::pin::pin!(connection.parser_continues());
    assert!(continues.as_mut().poll(&mut cx).is_pending());
    assert!(connection.take_forgotten() && !connection.take_forgotten());
    assert!(continues.as_mut().poll(&mut cx).is_ready());

    let mut continues = std::pin::pin!(connection.parser_continues());
    assert!(continues.as_mut().poll(&mut cx).is_pending());
    assert!(continues.as_mut().poll(&mut cx).is_ready(), "the parser has called it again");
    assert!(!connection.take_forgotten());
}

#[test]
fn a_request_without_a_body_does_not_wait_for_the_parser() {
    let connection = Connection::new(false);
    let _open = open(&connection, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut continues = std::pin::pin!(connection.parser_continues());
    assert!(continues.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready());
}
