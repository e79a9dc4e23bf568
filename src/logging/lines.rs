//! Writes log records as lines to standard output, and reports records that could not be written.
//!
//! Used by the thread that takes records out of the queue (`logging/mod.rs`).

use std::io::{self, Write};

use log::Level;

use super::{
    json_line::{write_json, MAX_LINE},
    queue::Entry,
    record::OwnedRecord,
    request_line::write_request,
};
use crate::{shortage, telemetry::times};

// Codes of the terminal, as in `launch/display.py`.
const PLAIN: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
/// Erases the line from the cursor on.
const ERASE: &str = "\x1b[K";

/// The format of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// That of contract section 13.
    Text {
        /// Lines get colours.
        colour: bool,
    },
    /// A JSON object a line.
    Json,
}

/// Writes lines to `output`. Records that cannot be written, for example to a full disk, are lost.
/// It reports the loss to `errors` at once, and to `output` when that takes lines again.
/// `launch/stdio.py` does the same for the supervisor and the workers.
pub(crate) struct Lines<W, E> {
    output: W,
    errors: E,
    own_pid: u64,
    format: Format,
    /// Records that were lost since the last success, and why.
    lost: usize,
    reason: String,
}

impl<W: Write, E: Write> Lines<W, E> {
    /// Makes a writer for records of this process.
    pub(crate) fn new(output: W, errors: E, format: Format) -> Self {
        Self { output, errors, own_pid: u64::from(std::process::id()), format, lost: 0, reason: String::new() }
    }

    /// Writes the records, as far as `output` takes them.
    pub(crate) fn emit(&mut self, records: &[Entry]) {
        match self.write(records) {
            Ok(()) => self.lost = 0,
            // The reader of the pipe has gone, so nobody wants the lines.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => {
                self.reason = error.to_string();
                if self.lost == 0 {
                    let remedy = shortage::remedy(&error);
                    let text = format!("azmlinfsrv: the log cannot be written to standard output: {error}. {remedy}");
                    // Ignore a failure, because there is nowhere else to report it.
                    let _ = writeln!(self.errors, "{}", text.trim_end());
                }
                self.lost += records.len();
            }
        }
    }

    fn write(&mut self, records: &[Entry]) -> io::Result<()> {
        let mut lines = Vec::with_capacity(records.len() * 96);
        if self.lost > 0 {
            // A part of the last line may have been written.
            lines.push(b'\n');
            let text = format!("{} log records were lost: {}", self.lost, self.reason);
            let record = OwnedRecord::new(Level::Warn, "azmlinfsrv", text, None);
            self.write_record(&mut lines, &record);
        }
        for entry in records {
            match entry {
                Entry::Record(record) => self.write_record(&mut lines, record),
                Entry::Request(request) => write_request(&mut lines, request, self.own_pid),
            }
        }
        match self.format {
            Format::Text { .. } => self.output.write_all(&lines)?,
            Format::Json => pieces(&lines).try_for_each(|piece| self.output.write_all(piece))?,
        }
        self.output.flush()
    }

    fn write_record(&mut self, out: &mut Vec<u8>, record: &OwnedRecord) {
        match self.format {
            Format::Text { colour } => write_line(out, record, self.own_pid, colour),
            Format::Json => write_json(out, record, self.own_pid),
        }
    }
}

/// The lines in pieces of whole lines, each of which a pipe takes at once: other processes write to it too.
fn pieces(mut lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let most = &lines[..lines.len().min(MAX_LINE)];
        let end = if most.len() == lines.len() { None } else { most.iter().rposition(|byte| *byte == b'\n') };
        let (piece, rest) = lines.split_at(end.map_or(most.len(), |end| end + 1));
        lines = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// `2026-11-22 07:13:22,123 I [42] azmlinfsrv - text`, in UTC; coloured as `launch/display.py` has it, or not.
fn write_line(out: &mut Vec<u8>, record: &OwnedRecord, own_pid: u64, colour: bool) {
    let (second, milliseconds) = record.since_epoch();
    let (letter, level_colour) = match record.level {
        Level::Error => ("E", RED),
        Level::Warn => ("W", YELLOW),
        Level::Info => ("I", PLAIN),
        Level::Debug | Level::Trace => ("D", DIM),
    };
    // The progress of init() may be on the terminal, with the cursor at its beginning.
    let (erase, time_colour, end) = if colour { (ERASE, DIM, PLAIN) } else { ("", "", "") };
    let (level_colour, level_end) = if colour && level_colour != PLAIN { (level_colour, PLAIN) } else { ("", "") };
    let (mut decimals, mut pid) = (itoa::Buffer::new(), itoa::Buffer::new());
    // The thousand keeps the zeros in front of the milliseconds.
    let decimals = &decimals.format(1000 + milliseconds)[1..];
    let pid = pid.format(record.worker_pid.unwrap_or(own_pid));
    let before = [erase, time_colour];
    let after = [",", decimals, end, " ", level_colour, letter, level_end, " [", pid, "] ", &record.target, " - "];
    // Every request has a line, and format strings take several times as long as these copies.
    before.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    times::second(out, second, b' ');
    after.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    match if colour { split_at_status(&record.message) } else { None } {
        Some((before, status, after)) => {
            for part in [before, status_colour(status), status, PLAIN, after] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        None => out.extend_from_slice(record.message.as_bytes()),
    }
    out.push(b'\n');
}

fn status_colour(status: &str) -> &'static str {
    match status.as_bytes().first() {
        Some(b'2') => GREEN,
        Some(b'3') => CYAN,
        Some(b'4') => YELLOW,
        _ => RED,
    }
}

/// Cuts the line of a request (`access_line.rs`) into what is before its status, the status, and the rest. `None` for any
/// other text.
fn split_at_status(text: &str) -> Option<(&str, &str, &str)> {
    let mut words = text.rsplitn(4, ' ');
    let (_length, duration, status, before) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let is_request = duration.ends_with("ms") && status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    let at = before.len() + 1;
    is_request.then(|| (&text[..at], status, &text[at + status.len()..]))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn record(worker_pid: Option<u64>) -> OwnedRecord {
        let time = UNIX_EPOCH + Duration::from_millis(1_795_331_602_007);
        OwnedRecord { time, ..OwnedRecord::new(Level::Info, "azmlinfsrv", "GET /score 200".to_owned(), worker_pid) }
    }

    #[test]
    fn lines_have_the_format_of_contract_section_13() {
        let mut out = Vec::new();
        write_line(&mut out, &record(None), 42, false);
        write_line(&mut out, &record(Some(7)), 42, false);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "2026-11-22 07:13:22,007 I [42] azmlinfsrv - GET /score 200\n\
             2026-11-22 07:13:22,007 I [7] azmlinfsrv - GET /score 200\n"
        );
    }

    #[test]
    fn colours_mark_the_time_the_level_and_the_status_of_a_request() {
        let line = |level, message: &str| {
            let mut out = Vec::new();
            let coloured = OwnedRecord { level, message: message.to_owned(), ..record(None) };
            write_line(&mut out, &coloured, 42, true);
            String::from_utf8(out).expect("text")
        };
        let time = "\x1b[K\x1b[2m2026-11-22 07:13:22,007\x1b[0m";
        assert_eq!(
            line(Level::Info, "POST /score?a=1 404 5.385ms 8"),
            format!("{time} I [42] azmlinfsrv - POST /score?a=1 \x1b[33m404\x1b[0m 5.385ms 8\n")
        );
        assert_eq!(line(Level::Error, "no request"), format!("{time} \x1b[31mE\x1b[0m [42] azmlinfsrv - no request\n"));
    }

    /// Keeps what each call of `write` got.
    #[derive(Default)]
    struct Pipe(Vec<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_pipe_gets_whole_json_lines_in_pieces_that_it_takes_at_once() {
        let mut lines = Lines::new(Pipe::default(), Vec::new(), Format::Json);
        let records: Vec<_> =
            (0..200).map(|n| Entry::Record(OwnedRecord { message: "é".repeat(n * 17), ..record(Some(7)) })).collect();
        lines.emit(&records);
        assert!(lines.output.0.iter().all(|piece| piece.len() <= MAX_LINE && piece.ends_with(b"\n")));
        let written = String::from_utf8(lines.output.0.concat()).expect("text");
        assert!(written.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        assert!(lines.output.0.len() < written.lines().count());
    }

    /// A disk that is full until it is told otherwise.
    #[derive(Default)]
    struct Disk {
        has_room: bool,
        written: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.has_room {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_costs_is_told_once_and_counted() {
        let mut lines = Lines::new(Disk::default(), Vec::new(), Format::Text { colour: false });
        let entry = || Entry::Record(record(None));
        lines.emit(&[entry(), entry()]);
        lines.emit(&[entry()]);
        lines.output.has_room = true;
        lines.emit(&[entry()]);
        lines.emit(&[entry()]);
        let errors = String::from_utf8_lossy(&lines.errors).into_owned();
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.starts_with("azmlinfsrv: the log cannot be written to standard output: "), "{errors}");
        let written = String::from_utf8_lossy(&lines.output.written).into_owned();
        assert_eq!(written.matches("3 log records were lost: ").count(), 1, "{written}");
        assert_eq!(written.matches("GET /score 200").count(), 2, "{written}");
    }
}
