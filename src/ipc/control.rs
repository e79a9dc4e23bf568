//! The messages between the front and the supervisor, over a socket pair.
//!
//! Each message is a line of text, so that the Python side needs no native code.
//! `supervise/control.py` is the supervisor's side, and has the same verbs. The tests of both sides
//! use `tests/control_lines.txt`, which has an example of each message. Runs in the front's event
//! loop. The end of the stream means that the supervisor has died.

use std::{fmt, io, rc::Rc};

use bytes::{Buf, BytesMut};
#[cfg(not(unix))]
use tokio::net::TcpStream as Line;
#[cfg(unix)]
use tokio::net::UnixStream as Line;

/// One end of what Python's `socket.socketpair()` makes.
#[cfg(unix)]
pub type StdLine = std::os::unix::net::UnixStream;
/// One end of what Python's `socket.socketpair()` makes.
#[cfg(not(unix))]
pub type StdLine = std::net::TcpStream;

/// Longest line either side may send, in bytes.
const MAX_LINE: usize = 4096;

/// What the supervisor tells the front. A worker's PID is its number if workers are threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// `exited PID TEXT`: the process ended, and how.
    Exited(u32, String),
    /// `stopped PID`: a signal, for example SIGSTOP, has stopped the process until it gets SIGCONT.
    Stopped(u32),
    /// `continued PID`: the process continues (SIGCONT).
    Continued(u32),
    /// `retire PID`: send this worker no more jobs, and tell it to exit when it has answered those
    /// that it has.
    Retire(u32),
    /// `outdated TEXT`: the files of the script have changed, and could not be loaded. The text says
    /// why, for the header of replies.
    Outdated(String),
    /// `current`: the workers have loaded the files as they are now.
    Current,
    /// `drain`: answer the requests that are queued or running, refuse new ones, then exit.
    Drain,
    /// `stop`: answer all requests with 503 now, then exit.
    Stop,
}

impl Order {
    /// Reads one line without its newline.
    fn parse(line: &str) -> Option<Self> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match verb {
            "exited" => {
                let (pid, cause) = rest.split_once(' ')?;
                Self::Exited(pid.parse().ok()?, cause.to_owned())
            }
            "stopped" => Self::Stopped(rest.parse().ok()?),
            "continued" => Self::Continued(rest.parse().ok()?),
            "retire" => Self::Retire(rest.parse().ok()?),
            "outdated" => Self::Outdated(rest.to_owned()),
            "current" => Self::Current,
            "drain" => Self::Drain,
            "stop" => Self::Stop,
            _ => return None,
        })
    }
}

/// Why the front has a worker replaced. Written as `KIND TEXT`; the text is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recycle {
    /// It has served this many requests, which is its limit (`--max_requests`).
    Served(u64),
    /// It exits by itself when it has answered its jobs, because somebody has sent a signal to this
    /// worker alone.
    Leaving,
    /// Its resident memory is above the limit (`--max_worker_rss`).
    Large {
        /// Its resident memory.
        mib: u64,
        /// The limit.
        limit: u64,
    },
}

impl fmt::Display for Recycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served(requests) => write!(f, "served has served {requests} requests"),
            Self::Leaving => write!(f, "leaving was told to end"),
            Self::Large { mib, limit } => write!(f, "large uses {mib} MiB (--max_worker_rss {limit})"),
        }
    }
}

/// What the front tells the supervisor. A worker's PID is its number if workers are threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// `ready PID`: this worker takes jobs now.
    Ready(u32),
    /// `disconnected PID`: the front has ended its connection to this worker, which connects again.
    Disconnected(u32),
    /// `kill PID TEXT`: kill this worker and replace it. The text says why, for the log.
    Kill(u32, String),
    /// `recycle PID KIND TEXT`: start a successor, and retire this worker when the successor is
    /// ready. The front asks once for each worker. The text says why, for the log.
    Recycle(u32, Recycle),
    /// `released`: after `drain` every request has been answered, and the front has told the
    /// workers to exit.
    Released,
}

impl fmt::Display for Report {
    /// The line, without its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(pid) => write!(f, "ready {pid}"),
            Self::Disconnected(pid) => write!(f, "disconnected {pid}"),
            Self::Kill(pid, reason) => write!(f, "kill {pid} {reason}"),
            Self::Recycle(pid, reason) => write!(f, "recycle {pid} {reason}"),
            Self::Released => write!(f, "released"),
        }
    }
}

/// The front's end of the socket pair.
pub struct Supervisor {
    stream: Line,
}

impl Supervisor {
    /// Takes over the front's end.
    pub fn new(stream: StdLine) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self { stream: Line::from_std(stream)? }))
    }

    /// Reports that this worker takes jobs now.
    pub fn say_ready(&self, pid: u32) {
        self.say(&Report::Ready(pid));
    }

    /// The front has ended its connection to this worker.
    pub fn say_disconnected(&self, pid: u32) {
        self.say(&Report::Disconnected(pid));
    }

    /// Asks for a successor of this worker.
    pub fn ask_to_recycle(&self, pid: u32, reason: Recycle) {
        self.say(&Report::Recycle(pid, reason));
    }

    /// Reports that after `drain` every request has been answered.
    pub fn say_released(&self) {
        self.say(&Report::Released);
    }

    /// Asks the supervisor to kill and replace this worker.
    pub fn ask_to_kill(&self, pid: u32, reason: &str) {
        self.say(&Report::Kill(pid, reason.to_owned()));
    }

    /// Sends a report, and drops it if the socket is full. Reports are few and short, and the
    /// supervisor reads them at once, so a full socket means that the supervisor hangs or has died.
    fn say(&self, report: &Report) {
        let line = format!("{report}\n");
        match self.stream.try_write(line.as_bytes()) {
            Ok(written) if written == line.len() => {}
            Ok(_) => log::error!(target: "azmlinfsrv.front", "The supervisor took only a part of {line:?}"),
            Err(error) => log::error!(target: "azmlinfsrv.front", "Cannot tell the supervisor {line:?}: {error}"),
        }
    }

    /// Waits for the next order; `None` when the supervisor is gone. Lines that are not an order
    /// are logged and skipped.
    pub async fn next_order(&self, buffer: &mut BytesMut) -> io::Result<Option<Order>> {
        loop {
            while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                let line = buffer.split_to(end);
                buffer.advance(1);
                match std::str::from_utf8(&line).ok().and_then(Order::parse) {
                    Some(order) => return Ok(Some(order)),
                    None => log::error!(target: "azmlinfsrv.front", "Unknown order from the supervisor: {line:?}"),
                }
            }
            if buffer.len() > MAX_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an order without an end"));
            }
            self.stream.readable().await?;
            match self.stream.try_read_buf(buffer) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The supervisor was killed before it had read all messages of the front.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Order, Recycle, Report};

    /// The lines of one kind in the examples that both sides are tested with.
    fn examples(kind: &str) -> Vec<&'static str> {
        include_str!("../../tests/control_lines.txt").lines().filter_map(|line| line.strip_prefix(kind)).collect()
    }

    /// Fails to compile when an order is added that the examples below do not know.
    fn index_of_order(order: &Order) -> usize {
        match order {
            Order::Exited(..) => 0,
            Order::Stopped(_) => 1,
            Order::Continued(_) => 2,
            Order::Retire(_) => 3,
            Order::Outdated(_) => 4,
            Order::Current => 5,
            Order::Drain => 6,
            Order::Stop => 7,
        }
    }

    #[test]
    fn orders_are_read_as_the_supervisor_writes_them() {
        let orders = [
            Order::Exited(12, "was killed by signal 9 (SIGKILL)".to_owned()),
            Order::Stopped(12),
            Order::Continued(12),
            Order::Retire(12),
            Order::Outdated("score.py:12 ZeroDivisionError".to_owned()),
            Order::Current,
            Order::Drain,
            Order::Stop,
        ];
        assert!(orders.iter().map(index_of_order).eq(0..orders.len()));
        let read: Vec<_> = examples("order ").into_iter().map(Order::parse).collect();
        assert_eq!(read, orders.map(Some));
    }

    #[test]
    fn reports_are_written_as_the_supervisor_reads_them() {
        let reports = [
            Report::Ready(12),
            Report::Disconnected(12),
            Report::Kill(12, "did not finish a request in time (WORKER_TIMEOUT 300 s)".to_owned()),
            Report::Recycle(12, Recycle::Served(1000)),
            Report::Recycle(12, Recycle::Leaving),
            Report::Recycle(12, Recycle::Large { mib: 300, limit: 200 }),
            Report::Released,
        ];
        assert_eq!(reports.map(|report| report.to_string()), examples("report ").as_slice());
    }

    #[test]
    fn anything_else_is_no_order() {
        for line in ["", "exited", "exited 12", "exited x y", "stopped", "continued x", "retire", "retire -1", "Stop"] {
            assert_eq!(Order::parse(line), None, "{line:?}");
        }
    }
}
