//! How a worker process writes the parts of a frame to its socket.
//!
//! Runs on the main thread and on the threads of a pool. Nothing here needs the GIL.

use std::{io::IoSlice, os::unix::net::UnixStream};

use bytes::{Buf as _, Bytes};
use nix::errno::Errno;

use crate::ipc::unix_socket;

/// Up to this length parts are small: one write copies them in less time than a thread of Python has
/// the GIL for. The system may take any length in one write, if the other end reads meanwhile.
const SMALL: usize = 64 * 1024;

/// Sends all of the parts, waiting for room, and removes what it has sent.
pub(in crate::worker) fn send_parts(stream: &UnixStream, parts: &mut [Bytes; 2]) -> nix::Result<()> {
    while !is_sent(parts) {
        write_once(stream, parts, true)?;
    }
    Ok(())
}

/// Sends what one write of small parts takes without waiting, which may be nothing, and removes it
/// from the parts. Sends nothing of large ones.
pub(super) fn send_at_once(stream: &UnixStream, parts: &mut [Bytes; 2]) -> nix::Result<()> {
    if parts.iter().map(Bytes::len).sum::<usize>() > SMALL {
        return Ok(());
    }
    match write_once(stream, parts, false) {
        Err(Errno::EAGAIN) => Ok(()),
        sent => sent,
    }
}

/// True if nothing is left.
pub(super) fn is_sent(parts: &[Bytes; 2]) -> bool {
    parts.iter().all(Bytes::is_empty)
}

/// One write. A signal that interrupts it is no error.
fn write_once(stream: &UnixStream, parts: &mut [Bytes; 2], wait: bool) -> nix::Result<()> {
    let [head, body] = parts;
    match unix_socket::send(stream, &[IoSlice::new(head), IoSlice::new(body)], wait) {
        Ok(written) => {
            let from_head = written.min(head.len());
            head.advance(from_head);
            body.advance(written - from_head);
            Ok(())
        }
        Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn nothing_of_a_large_reply_is_sent_at_once() {
        let (stream, mut front) = UnixStream::pair().expect("sockets");
        let mut parts = [Bytes::from_static(b"head"), Bytes::from(vec![7; SMALL])];
        send_at_once(&stream, &mut parts).expect("a front");
        assert_eq!(parts.each_ref().map(Bytes::len), [4, SMALL]);
        let reads = std::thread::spawn(move || {
            let mut received = Vec::new();
            front.read_to_end(&mut received).map(|_| received)
        });
        send_parts(&stream, &mut parts).expect("a front");
        drop(stream);
        let received = reads.join().expect("no panic").expect("all bytes");
        assert!(is_sent(&parts) && received.len() == 4 + SMALL && received.starts_with(b"head\x07"));
    }

    #[test]
    fn a_small_reply_takes_one_write_and_a_socket_without_room_none() {
        let (stream, _front) = UnixStream::pair().expect("sockets");
        let small = || {
            let mut parts = [Bytes::from_static(b"head"), Bytes::from_static(b"body")];
            send_at_once(&stream, &mut parts).expect("a front");
            is_sent(&parts)
        };
        assert!(small());
        while small() {}
        assert!(!small());
    }
}
