//! System calls on the Unix socket between the front and a worker: passing descriptors, one send,
//! one receive.
//!
//! Used at both ends: in the front's event loop (`dispatch/transport/socket.rs`), and on a worker's
//! main thread (`worker/transport/socket.rs`).

#![allow(unsafe_code)]

use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    rc::Rc,
};

use bytes::{BufMut as _, BytesMut};
#[cfg(feature = "python")]
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::{
    cmsg_space, libc,
    sys::socket::{recvmsg, sendmsg, ControlMessage, ControlMessageOwned, MsgFlags},
};
use socket2::SockRef;
use tokio::io::{unix::AsyncFd, Interest};

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const NO_SIGNAL: MsgFlags = MsgFlags::MSG_NOSIGNAL;
// On these systems the standard library sets `SO_NOSIGPIPE` on the worker's socket. In the front,
// where no script runs, Python ignores the signal.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const NO_SIGNAL: MsgFlags = MsgFlags::empty();

/// The byte that a descriptor is sent with, because the kernel attaches descriptors only to bytes.
/// It has no meaning.
const COMPANION: &[u8] = b"\n";

/// Sends one descriptor, or only the byte if there is none. Does not wait.
pub fn send_descriptor(socket: impl AsFd, descriptor: Option<BorrowedFd<'_>>) -> nix::Result<()> {
    let descriptors: Vec<_> = descriptor.iter().map(BorrowedFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let attached = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    let flags = NO_SIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(COMPANION)], attached, flags, None).map(drop)
}

/// Receives what [`send_descriptor`] has sent. Waits for as long as the socket's read timeout
/// allows. `None` if no descriptor was attached, or if this process may not open another file.
pub fn receive_descriptor(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0; COMPANION.len()];
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    let mut room = cmsg_space!(RawFd);
    #[cfg(target_os = "linux")]
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut room), flags)?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // If this process has too many open files, the kernel leaves the descriptor out and marks the
    // message, and nix then returns an error.
    let Ok(attached) = message.cmsgs() else { return Ok(None) };
    let received: Vec<OwnedFd> = attached
        .flat_map(|message| match message {
            ControlMessageOwned::ScmRights(descriptors) => descriptors,
            _ => Vec::new(),
        })
        // SAFETY: the kernel has just made these descriptors for us. All are owned, so that those
        // beyond the first, which only a script can have sent, are closed.
        .map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
        .collect();
    #[cfg(not(target_os = "linux"))]
    for descriptor in &received {
        nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    }
    Ok(received.into_iter().next())
}

/// Sends as much of `parts` as the socket takes. A peer that is gone is an error and never raises
/// SIGPIPE, however a script handles that signal.
pub fn send(stream: &UnixStream, parts: &[IoSlice<'_>], wait: bool) -> nix::Result<usize> {
    let flags = if wait { NO_SIGNAL } else { NO_SIGNAL | MsgFlags::MSG_DONTWAIT };
    sendmsg::<()>(stream.as_raw_fd(), parts, &[], flags, None)
}

/// Appends the bytes that have arrived, up to the buffer's spare capacity, without waiting. Zero
/// bytes mean the end.
pub fn receive(stream: &UnixStream, buffer: &mut BytesMut) -> io::Result<usize> {
    // SAFETY: receiving writes to the slice and never reads from it or makes it uninitialised.
    let room = unsafe { buffer.chunk_mut().as_uninit_slice_mut() };
    let read = SockRef::from(stream).recv_with_flags(room, libc::MSG_DONTWAIT)?;
    // SAFETY: the call above has just written `read` bytes of the room.
    unsafe { buffer.advance_mut(read) };
    Ok(read)
}

/// Waits until bytes, an error or the end of the stream can be received. Returns `WouldBlock` after
/// `timeout`.
///
/// A blocking receive would work, but the kernel wakes it whenever the peer reads too, which costs
/// the peer some 15 µs.
#[cfg(feature = "python")]
pub fn wait_readable(stream: &UnixStream, timeout: PollTimeout) -> io::Result<()> {
    match poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], timeout)? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

/// Waits like [`wait_readable`], or until bytes can be received from `wake`, and takes those bytes.
/// Whoever calls this tries to receive afterwards, and so learns of errors.
#[cfg(feature = "python")]
pub fn wait_readable_or_woken(stream: &UnixStream, wake: &UnixStream, timeout: PollTimeout) {
    let [stream, woken] = [stream, wake].map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN));
    let mut both = [stream, woken];
    if poll(&mut both, timeout).is_ok() && both[1].any() == Some(true) {
        let _ = receive(wake, &mut BytesMut::with_capacity(64));
    }
}

/// Registers the stream with the event loop for `interest` only. It must not be registered already.
pub fn watch(stream: Rc<UnixStream>, interest: Interest) -> io::Result<AsyncFd<Rc<UnixStream>>> {
    // SAFETY: the stream, which owns the descriptor, is moved into the result, and keeps the same
    // descriptor.
    unsafe { AsyncFd::register_with_interest(stream, interest) }.map_err(io::Error::from)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::fd::Identity;

    #[test]
    fn descriptors_arrive_one_by_one_on_a_stream() {
        let (front, worker) = UnixStream::pair().expect("sockets");
        let (first, second) = UnixStream::pair().expect("descriptors to send");
        send_descriptor(&front, Some(first.as_fd())).expect("sent");
        send_descriptor(&front, None).expect("sent");
        send_descriptor(&front, Some(second.as_fd())).expect("sent");
        let received = || receive_descriptor(&worker).expect("received").map(|one| Identity::of(one).expect("open"));
        assert_eq!(received(), Some(Identity::of(&first).expect("open")));
        assert_eq!(received(), None);
        assert_eq!(received(), Some(Identity::of(&second).expect("open")));
        drop(front);
        assert_eq!(receive_descriptor(&worker).expect_err("the end").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_connection_that_waits_for_a_front_is_not_lost_with_its_sender() {
        let (front, worker) = UnixDatagram::pair().expect("sockets");
        let (ours, theirs) = UnixStream::pair().expect("a connection");
        send_descriptor(&worker, Some(theirs.as_fd())).expect("sent");
        drop((theirs, worker));
        let taken = UnixStream::from(receive_descriptor(&front).expect("received").expect("a connection"));
        send(&ours, &[IoSlice::new(b"hello")], false).expect("sent");
        let mut buffer = BytesMut::with_capacity(10);
        assert_eq!(receive(&taken, &mut buffer).expect("received"), 5);
    }
}
