//! Log records as JSON objects, one a line (`--log_format json`; docs/logs.md lists the fields).
//!
//! `request_line.rs` writes the lines of requests, `json_log.py` the records of the other processes, in the same form.
//! Several processes write to one standard output, so no line may be longer than what a pipe takes in one piece: a longer
//! message is cut into several objects. Pure functions.

use std::{borrow::Cow, io::Write as _, time::SystemTime};

use log::{kv, Level};

use super::{text::plain_line, OwnedRecord, WORKER_PID};
use crate::{
    json::utf8::write_text,
    telemetry::{
        access_fields::{Fields, Value},
        times::time_in_milliseconds,
    },
};

/// Longest line in bytes. A pipe takes as much in one piece (`PIPE_BUF` of Linux), so lines of
/// several processes cannot mix.
pub(crate) const MAX_LINE: usize = 4096;
/// Longest text of a field in bytes. Clients choose some of them.
const MAX_FIELD: usize = 256;
/// Enough for `,"part":…,"parts":…` and the end of the line.
const PART_FIELDS: usize = 48;
/// The end of a line.
const END: &[u8] = b"}\n";

impl<'kvs> kv::VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let value = match (value.to_u64(), value.to_f64()) {
            (Some(number), _) => Value::Whole(number),
            (None, Some(number)) => Value::Number(number),
            (None, None) => Value::Text(plain_line(value.to_string())),
        };
        self.0.push((key.as_str().to_owned().into(), value));
        Ok(())
    }
}

/// Appends the record as one line, or as several if its message is long. Writing to a vector cannot fail.
pub(super) fn write_json(out: &mut Vec<u8>, record: &OwnedRecord, own_pid: u64) {
    let level = match record.level {
        Level::Error => "ERROR",
        Level::Warn => "WARNING",
        Level::Info => "INFO",
        Level::Debug | Level::Trace => "DEBUG",
    };
    let before = Before { time: record.time, level, logger: &record.target };
    write_lines(out, &before, &record.message, |after| {
        let _ = write!(after, ",\"pid\":{}", record.worker_pid.unwrap_or(own_pid));
        for (name, value) in record.fields.0.iter().filter(|(name, _)| name != WORKER_PID) {
            after.push(b',');
            write_text(after, name);
            after.push(b':');
            match value {
                Value::Text(text) => write_text(after, &shortened(text)),
                Value::Whole(number) => drop(write!(after, "{number}")),
                Value::Number(number) if number.is_finite() => drop(write!(after, "{number}")),
                Value::Number(_) => after.extend_from_slice(b"null"),
            }
        }
    });
}

/// The fields before the message.
pub(super) struct Before<'a> {
    pub(super) time: SystemTime,
    pub(super) level: &'a str,
    pub(super) logger: &'a str,
}

/// Appends a message as one object, or as several if it is long. `write_after` writes the fields behind the message.
pub(super) fn write_lines(
    out: &mut Vec<u8>,
    before: &Before<'_>,
    message: &str,
    write_after: impl FnOnce(&mut Vec<u8>),
) {
    let from = out.len();
    out.extend_from_slice(b"{\"time\":\"");
    time_in_milliseconds(out, before.time);
    out.extend_from_slice(b"\",\"level\":\"");
    out.extend_from_slice(before.level.as_bytes());
    out.extend_from_slice(b"\",\"logger\":");
    write_text(out, before.logger);
    out.extend_from_slice(b",\"message\":");
    let at_message = out.len();
    write_text(out, message);
    let at_after = out.len();
    write_after(out);
    if out.len() - from + END.len() <= MAX_LINE {
        out.extend_from_slice(END);
        return;
    }
    let after = out.split_off(at_after);
    out.truncate(at_message);
    let before = out.split_off(from);
    let parts = parts(message, MAX_LINE.saturating_sub(before.len() + after.len() + PART_FIELDS));
    for (index, part) in parts.iter().enumerate() {
        out.extend_from_slice(&before);
        write_text(out, part);
        out.extend_from_slice(&after);
        if parts.len() > 1 {
            let _ = write!(out, ",\"part\":{},\"parts\":{}", index + 1, parts.len());
        }
        out.extend_from_slice(END);
    }
}

pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_FIELD {
        return text.into();
    }
    let end = (0..=MAX_FIELD).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}[... {} bytes left out ...]", &text[..end], text.len() - end).into()
}

/// The text in pieces that need at most `room` bytes as JSON, at least one.
fn parts(text: &str, room: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut from, mut used) = (0, 2);
    for (at, character) in text.char_indices() {
        let needed = match character {
            '"' | '\\' => 2,
            // The longest form that JSON has for a character.
            '\0'..='\x1f' => 6,
            other => other.len_utf8(),
        };
        if used + needed > room && at > from {
            parts.push(&text[from..at]);
            (from, used) = (at, 2);
        }
        used += needed;
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn record(message: &str, fields: Vec<(&str, Value)>) -> OwnedRecord {
        let mut record = OwnedRecord::new(Level::Info, "azmlinfsrv", message.to_owned(), None);
        record.time = UNIX_EPOCH + Duration::from_millis(1_795_331_602_007);
        record.fields = Fields(fields.into_iter().map(|(name, value)| (name.to_owned().into(), value)).collect());
        record
    }

    fn lines(record: &OwnedRecord) -> Vec<String> {
        let mut out = Vec::new();
        write_json(&mut out, record, 42);
        let text = String::from_utf8(out).expect("text");
        assert!(text.ends_with('\n'));
        text.lines().map(str::to_owned).collect()
    }

    fn objects(record: &OwnedRecord) -> Vec<serde_json::Value> {
        let lines = lines(record);
        assert!(lines.iter().all(|line| line.len() < MAX_LINE), "{:?}", lines.iter().map(String::len));
        lines.iter().map(|line| serde_json::from_str(line).expect("one object")).collect()
    }

    #[test]
    fn a_record_is_one_object_with_the_fields_of_the_docs_page() {
        let fields = vec![
            ("status", Value::Whole(200)),
            ("total_ms", Value::Number(1.25)),
            ("user_agent", Value::Text("a \"b\"".into())),
            (WORKER_PID, Value::Whole(7)),
        ];
        assert_eq!(
            lines(&record("GET /score 200", fields)),
            [
                r#"{"time":"2026-11-22T07:13:22.007Z","level":"INFO","logger":"azmlinfsrv","message":"GET /score 200","pid":42,"status":200,"total_ms":1.25,"user_agent":"a \"b\""}"#
            ]
        );
        let served = OwnedRecord { worker_pid: Some(7), ..record("", vec![]) };
        assert_eq!(objects(&served)[0]["pid"], 7);
    }

    #[test]
    fn a_long_message_is_cut_into_objects_that_can_be_joined_again() {
        for unit in ["x", "\"", "\\", "é", "😀", "a\n\u{1}😀"] {
            let text = unit.repeat(9000 / unit.len());
            let found = objects(&record(&text, vec![("status", Value::Whole(200))]));
            let joined: String = found.iter().map(|object| object["message"].as_str().expect("text")).collect();
            assert_eq!(joined, text);
            for (index, object) in found.iter().enumerate() {
                assert_eq!(object["part"], index + 1);
                assert_eq!(object["parts"], found.len());
                assert_eq!(object["status"], 200);
            }
        }
    }

    #[test]
    fn fields_that_a_client_chose_leave_room_for_the_message() {
        let hostile = "\"\\".repeat(5000);
        let names = ["request_id", "client_request_id", "method", "user_agent"];
        let fields = names.map(|name| (name, Value::Text(hostile.clone()))).into();
        let found = objects(&record(&hostile, fields));
        let joined: String = found.iter().map(|object| object["message"].as_str().expect("text")).collect();
        assert_eq!(joined, hostile);
        assert!(found[0]["method"].as_str().expect("text").ends_with("[... 9744 bytes left out ...]"));
    }

    #[test]
    fn a_number_that_json_does_not_have_is_null() {
        assert!(objects(&record("", vec![("run_ms", Value::Number(f64::NAN))]))[0]["run_ms"].is_null());
    }
}
