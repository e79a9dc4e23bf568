//! The line of a request as a JSON object (`--log_format json`; docs/logs.md lists the fields).
//!
//! Each request has such a line, so it is written piece by piece, by the thread that writes the log. The front's event loop
//! only passes the request on (`front/access_log.rs`). Pure functions.

use std::io::Write as _;

use super::{
    json_line::{shortened, write_lines, Before},
    text::plain,
};
use crate::{
    front::{shown_of_abandoned, REQUEST_LOGGER},
    json::utf8::write_text,
    telemetry::{
        access_line::Line,
        item::{Request, Text},
        redaction,
        times::milliseconds,
        trace_context::{trace_id, write_hex},
    },
};

/// Appends the line of a request. What is not known is left out.
pub(super) fn write_request(out: &mut Vec<u8>, request: &Request, own_pid: u64) {
    let (status, length) = match request.status {
        Some(status) => (status, request.reply_length),
        None => shown_of_abandoned(request.route),
    };
    let (method, shown) = (request.method.as_str(), request.shown_target());
    let line = Line { method, target: &redaction::target(&shown), status, elapsed: request.elapsed, length }.text();
    let time = request.began_at + request.duration;
    write_lines(out, &Before { time, level: "INFO", logger: REQUEST_LOGGER }, &plain(&line), |after| {
        after.extend_from_slice(b",\"pid\":");
        whole(after, request.worker.map_or(own_pid, |worker| worker.pid.into()));
        if let Some(worker) = request.worker {
            after.extend_from_slice(b",\"worker\":");
            whole(after, worker.slot.into());
        }
        text(after, b",\"request_id\":", &request.text(Text::RequestId));
        text(after, b",\"client_request_id\":", &request.text(Text::ClientRequestId));
        if let Some(id) = trace_id(request.span, request.parent) {
            after.extend_from_slice(b",\"trace_id\":\"");
            write_hex(after, &id);
            after.push(b'"');
        }
        text(after, b",\"method\":", method);
        text(after, b",\"route\":", request.route.map_or("", |route| route.path()));
        after.extend_from_slice(b",\"status\":");
        whole(after, status.into());
        if let (Some(queued), Some(started)) = (request.job.queued, request.job.started) {
            after.extend_from_slice(b",\"queued_ms\":");
            milliseconds(after, started.saturating_duration_since(queued));
        }
        if let Some(run) = request.job.run {
            after.extend_from_slice(b",\"run_ms\":");
            milliseconds(after, run);
        }
        after.extend_from_slice(b",\"total_ms\":");
        milliseconds(after, request.duration);
        after.extend_from_slice(b",\"bytes_in\":");
        whole(after, request.bytes_in);
        after.extend_from_slice(b",\"bytes_out\":");
        whole(after, request.bytes_out);
        if let Some(client) = request.client {
            // An address has no characters that JSON escapes. Writing to a vector cannot fail.
            let _ = write!(after, ",\"client\":\"{}\"", client.ip());
        }
        text(after, b",\"user_agent\":", &request.text(Text::UserAgent));
        text(after, b",\"error\":", &request.text(Text::ErrorLocation));
    });
}

/// A text that may be a client's; nothing if it is empty.
fn text(out: &mut Vec<u8>, name: &[u8], value: &str) {
    if !value.is_empty() {
        out.extend_from_slice(name);
        write_text(out, &shortened(&plain(value)));
    }
}

fn whole(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::Method;

    use super::*;
    use crate::telemetry::{
        pieces::Pieces,
        record::{Head, JobTimes, RequestRecord, Route, Worker},
        trace_context::TraceParent,
    };

    fn record(target: &'static str) -> RequestRecord {
        let head = Head::without_fields(Method::POST, target);
        let mut record = RequestRecord::begin(Some(head), None);
        record.began_at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_331_602_000);
        (record.answered, record.finished) = (Some(record.began), Some(record.began + Duration::from_micros(7_100)));
        record
    }

    fn line(record: &RequestRecord) -> String {
        let mut out = Vec::new();
        write_request(&mut out, &Request::of(record, &mut Pieces::default()).expect("a request"), 42);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut record = record("/nowhere");
        record.status = Some(404);
        record.reply_length = Some(5);
        assert_eq!(
            line(&record),
            "{\"time\":\"2026-11-22T07:13:22.007Z\",\"level\":\"INFO\",\"logger\":\"azmlinfsrv\",\
             \"message\":\"POST /nowhere 404 0.000ms 5\",\"pid\":42,\"method\":\"POST\",\"status\":404,\
             \"total_ms\":7.1,\"bytes_in\":0,\"bytes_out\":0}\n"
        );
    }

    #[test]
    fn all_fields_of_a_request_that_was_scored() {
        let mut record = record("/score/?code=secret&a=1");
        let at = |millis| Some(record.began + Duration::from_millis(millis));
        let (queued, started) = (at(1), at(3));
        record.job = JobTimes { queued, started, run: Some(Duration::from_micros(4_500)), ..JobTimes::default() };
        record.client = Some(([192, 0, 2, 1], 9).into());
        record.parent = Some(TraceParent { trace_id: [0xab; 16], span_id: [1; 8], flags: 0 });
        record.worker = Some(Worker { pid: 7, slot: 1 });
        record.route = Some(Route::Score);
        record.status = Some(500);
        record.ids.request = Some("r".into());
        record.ids.client_request = Some(bytes::Bytes::from_static(b"\xff\x1b"));
        (record.bytes_in, record.bytes_out) = (5, 6);
        record.error_location = "score.py:1 KeyError".into();
        record.head.iter_mut().for_each(|head| head.user_agent = Some(http::HeaderValue::from_static("a \"b\"")));
        let line = line(&record);
        let fields = line.split_once("\"message\":").expect("a message").1;
        assert_eq!(
            fields,
            "\"POST /score?code=REDACTED&a=1 500 0.000ms N/A\",\"pid\":7,\"worker\":1,\"request_id\":\"r\",\
             \"client_request_id\":\"\u{fffd}\\\\x1b\",\"trace_id\":\"abababababababababababababababab\",\
             \"method\":\"POST\",\"route\":\"/score\",\"status\":500,\"queued_ms\":2,\"run_ms\":4.5,\"total_ms\":7.1,\
             \"bytes_in\":5,\"bytes_out\":6,\"client\":\"192.0.2.1\",\"user_agent\":\"a \\\"b\\\"\",\
             \"error\":\"score.py:1 KeyError\"}\n"
        );
    }

    #[test]
    fn a_request_whose_client_has_left_shows_the_reply_that_it_would_have_got() {
        let line = line(&record("/score"));
        assert!(line.contains("\"message\":\"POST /score 503 0.000ms 78\""), "{line}");
    }

    #[test]
    fn a_path_with_names_is_the_one_that_the_client_sent() {
        let mut record = record("/v2/models/iris/infer?a=1");
        record.route = Some(Route::V2Infer);
        // The reply would have been {"error": ...}, which is two bytes shorter than {"message": ...}.
        let found = line(&record);
        assert!(found.contains("\"message\":\"POST /v2/models/iris/infer?a=1 503 0.000ms 76\""), "{found}");
        assert!(found.contains("\"route\":\"/v2/models/{name}/infer\""), "{found}");
        assert_eq!(Request::of(&record, &mut Pieces::default()).expect("a request").shown_target(), record.target());
    }
}
