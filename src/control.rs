//! The line protocol between the front and the supervisor, over a socket pair.
//!
//! Text, one message a line, so that the Python side needs no native code: `supervisor.py` is the other end and lists
//! the same verbs. Runs in the front's event loop. The end of the stream means that the supervisor is gone.

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
    /// `stopped PID`: the process does nothing until it is continued (SIGSTOP).
    Stopped(u32),
    /// `continued PID`: it goes on (SIGCONT).
    Continued(u32),
    /// `retire PID`: send this worker no more jobs and let it exit.
    Retire(u32),
    /// `drain`: stop accepting, finish what is queued and running, then return.
    Drain,
    /// `stop`: answer everything 503 now, then return.
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
            "drain" => Self::Drain,
            "stop" => Self::Stop,
            _ => return None,
        })
    }
}

/// Why the front has a worker replaced. Written as `KIND TEXT`; the text is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recycle {
    /// It has served so many requests, which is as many as it may.
    Served(u64),
    /// It ends by itself when it has answered what it has: a signal to the worker alone has told it to.
    Leaving,
    /// It is larger than it may be.
    Large {
        /// Its resident memory.
        mib: u64,
        /// What it may have.
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

/// The front's end of the socket pair.
pub struct Supervisor {
    stream: Line,
}

impl Supervisor {
    /// Takes over the front's end.
    pub fn new(stream: StdLine) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self { stream: Line::from_std(stream)? }))
    }

    /// `ready PID`: this worker takes jobs now.
    pub fn say_ready(&self, pid: u32) {
        self.say(&format!("ready {pid}"));
    }

    /// `recycle PID KIND TEXT`: start a successor, and let this worker go when that is ready.
    pub fn ask_to_recycle(&self, pid: u32, reason: Recycle) {
        self.say(&format!("recycle {pid} {reason}"));
    }

    /// `released`: every request has been answered after `drain`, and the workers are let go.
    pub fn say_released(&self) {
        self.say("released");
    }

    /// `kill PID TEXT`: end this worker and replace it; the text is for the log.
    pub fn ask_to_kill(&self, pid: u32, reason: &str) {
        self.say(&format!("kill {pid} {reason}"));
    }

    /// Messages are few and short, and the supervisor reads them at once: a full socket means that it hangs or is gone,
    /// and then there is nobody to tell.
    fn say(&self, message: &str) {
        let line = format!("{message}\n");
        match self.stream.try_write(line.as_bytes()) {
            Ok(written) if written == line.len() => {}
            Ok(_) => log::error!(target: "azmlinfsrv.front", "The supervisor took only a part of {message:?}"),
            Err(error) => log::error!(target: "azmlinfsrv.front", "Cannot tell the supervisor {message:?}: {error}"),
        }
    }

    /// Waits for the next order; `None` when the supervisor is gone. Lines that are none are logged and skipped.
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
                // A supervisor that was killed with words of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn orders_are_read_from_their_lines() {
        let cause = "was killed by signal 9 (SIGKILL)";
        assert_eq!(Order::parse(&format!("exited 12 {cause}")), Some(Order::Exited(12, cause.to_owned())));
        assert_eq!(Order::parse("stopped 12"), Some(Order::Stopped(12)));
        assert_eq!(Order::parse("continued 12"), Some(Order::Continued(12)));
        assert_eq!(Order::parse("retire 7"), Some(Order::Retire(7)));
        assert_eq!(Order::parse("drain"), Some(Order::Drain));
        assert_eq!(Order::parse("stop"), Some(Order::Stop));
    }

    #[test]
    fn anything_else_is_no_order() {
        for line in ["", "exited", "exited 12", "exited x y", "stopped", "continued x", "retire", "retire -1", "Stop"] {
            assert_eq!(Order::parse(line), None, "{line:?}");
        }
    }
}
