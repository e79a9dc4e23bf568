//! Writes log records as lines to standard output, and reports records that could not be written.
//!
//! Used by the thread that takes records out of the queue (`logging/mod.rs`).

use std::{
    io::{self, Write},
    time::UNIX_EPOCH,
};

use log::Level;

use crate::{logging::OwnedRecord, shortage};

/// Writes lines to `output`. Records that cannot be written, for example to a full disk, are lost.
/// It reports the loss to `errors` at once, and to `output` when that takes lines again.
/// `launch/stdio.py` does the same for the supervisor and the workers.
pub(crate) struct Lines<W, E> {
    output: W,
    errors: E,
    own_pid: u64,
    /// Records that were lost since the last success, and why.
    lost: usize,
    reason: String,
}

impl<W: Write, E: Write> Lines<W, E> {
    /// Makes a writer for records of this process.
    pub(crate) fn new(output: W, errors: E) -> Self {
        Self { output, errors, own_pid: u64::from(std::process::id()), lost: 0, reason: String::new() }
    }

    /// Writes the records, as far as `output` takes them.
    pub(crate) fn emit(&mut self, records: &[OwnedRecord]) {
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

    fn write(&mut self, records: &[OwnedRecord]) -> io::Result<()> {
        let mut lines = Vec::with_capacity(records.len() * 96);
        if self.lost > 0 {
            // A part of the last line may have been written.
            lines.push(b'\n');
            let text = format!("{} log records were lost: {}", self.lost, self.reason);
            write_line(&mut lines, &OwnedRecord::new(Level::Warn, "azmlinfsrv", text, None), self.own_pid);
        }
        for record in records {
            write_line(&mut lines, record, self.own_pid);
        }
        self.output.write_all(&lines)?;
        self.output.flush()
    }
}

/// `2026-11-22 07:13:22,123 I [42] azmlinfsrv - text`, in UTC.
fn write_line(out: &mut Vec<u8>, record: &OwnedRecord, own_pid: u64) {
    let since_epoch = record.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or_default();
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let letter = match record.level {
        Level::Error => 'E',
        Level::Warn => 'W',
        Level::Info => 'I',
        Level::Debug | Level::Trace => 'D',
    };
    // Writing to a vector cannot fail.
    let _ = writeln!(
        out,
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03} {letter} [{}] {} - {}",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        since_epoch.subsec_millis(),
        record.worker_pid.unwrap_or(own_pid),
        record.target,
        record.message
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record(worker_pid: Option<u64>) -> OwnedRecord {
        let time = UNIX_EPOCH + Duration::from_millis(1_795_331_602_007);
        OwnedRecord { time, ..OwnedRecord::new(Level::Info, "azmlinfsrv", "GET /score 200".to_owned(), worker_pid) }
    }

    #[test]
    fn lines_have_the_format_of_contract_section_13() {
        let mut out = Vec::new();
        write_line(&mut out, &record(None), 42);
        write_line(&mut out, &record(Some(7)), 42);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "2026-11-22 07:13:22,007 I [42] azmlinfsrv - GET /score 200\n\
             2026-11-22 07:13:22,007 I [7] azmlinfsrv - GET /score 200\n"
        );
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
        let mut lines = Lines::new(Disk::default(), Vec::new());
        lines.emit(&[record(None), record(None)]);
        lines.emit(&[record(None)]);
        lines.output.has_room = true;
        lines.emit(&[record(None)]);
        lines.emit(&[record(None)]);
        let errors = String::from_utf8_lossy(&lines.errors).into_owned();
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.starts_with("azmlinfsrv: the log cannot be written to standard output: "), "{errors}");
        let written = String::from_utf8_lossy(&lines.output.written).into_owned();
        assert_eq!(written.matches("3 log records were lost: ").count(), 1, "{written}");
        assert_eq!(written.matches("GET /score 200").count(), 2, "{written}");
    }
}
