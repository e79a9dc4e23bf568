//! What worker processes report for the exporters, as it arrives through a socket of its own
//! (`supervise/report_socket.py`).
//!
//! Runs in the front's event loop, which only moves each report into the intake; the exporter's thread reads it.

use std::{io, rc::Rc};

use bytes::Bytes;
use tokio::net::UnixDatagram;

use crate::telemetry::{intake::Intake, item::Item};

/// Longest report in bytes (`scripting/telemetry.py` sends shorter ones).
const MAX_REPORT: usize = 256 * 1024;
/// Reports that are taken before the event loop does something else.
const AT_ONCE: usize = 64;

/// The socket; clones share it.
#[derive(Clone)]
pub struct WorkerReports {
    socket: Rc<UnixDatagram>,
    intake: Intake,
}

impl WorkerReports {
    /// Takes over the front's end.
    pub fn new(socket: std::os::unix::net::UnixDatagram, intake: Intake) -> io::Result<Self> {
        Ok(Self { socket: Rc::new(UnixDatagram::from_std(socket)?), intake })
    }

    /// Reads for as long as the front runs.
    pub async fn read(self) {
        let mut buffer = vec![0; MAX_REPORT];
        while self.socket.readable().await.is_ok() {
            match self.take(&mut buffer) {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    return log::error!(target: "azmlinfsrv.telemetry", "Cannot read what workers report: {error}");
                }
            }
        }
    }

    /// Takes what has arrived, without waiting.
    pub fn take_rest(&self) {
        let mut buffer = vec![0; MAX_REPORT];
        while self.take(&mut buffer).is_ok() {}
    }

    /// Takes some reports. An error, usually `WouldBlock`, if there are no more at the moment.
    fn take(&self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..AT_ONCE {
            match self.socket.try_recv(buffer)? {
                // Every other end is closed: the supervisor has died.
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.intake.push(Item::Log(Bytes::copy_from_slice(&buffer[..length]))),
            }
        }
        Ok(())
    }
}
