//! The first word, one send and one receive on the Unix socket between the front and a worker, without waiting or with.
//!
//! Used at both ends: in the front's event loop (`dispatch/socket.rs`), and on a worker's main thread (`worker/socket.rs`).

#![allow(unsafe_code)]

#[cfg(feature = "python")]
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    rc::Rc,
};

use bytes::{BufMut as _, BytesMut};
#[cfg(feature = "python")]
use nix::{
    cmsg_space,
    poll::{poll, PollFd, PollFlags, PollTimeout},
    sys::socket::{recvmsg, ControlMessageOwned},
};
use nix::{
    libc,
    sys::socket::{sendmsg, ControlMessage, MsgFlags},
};
use socket2::SockRef;
use tokio::io::{unix::AsyncFd, Interest};

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const NO_SIGNAL: MsgFlags = MsgFlags::MSG_NOSIGNAL;
// Here the worker's socket was told so when it was made (`SO_NOSIGPIPE`, by the standard library). In the front, where no
// script runs, Python has the signal ignored.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const NO_SIGNAL: MsgFlags = MsgFlags::empty();

/// What the front sends first on a new connection; it says nothing.
const WELCOME: &[u8] = b"\n";

/// Front: takes a worker in, with the file of shared bodies if there is one. Does not wait.
pub fn send_welcome(stream: &UnixStream, file: Option<BorrowedFd<'_>>) -> nix::Result<()> {
    let descriptors: Vec<_> = file.iter().map(BorrowedFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let attached = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(WELCOME)], attached, NO_SIGNAL | MsgFlags::MSG_DONTWAIT, None)
        .map(drop)
}

/// Worker: waits for that, no longer than the socket's time-out. `None` if there is no file, or no descriptor for it.
#[cfg(feature = "python")]
pub fn receive_welcome(stream: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0; WELCOME.len()];
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    let mut room = cmsg_space!(RawFd);
    #[cfg(target_os = "linux")]
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // The kernel leaves out what a process with too many open files cannot take, and says so. nix refuses such a message.
    let Ok(attached) = message.cmsgs() else { return Ok(None) };
    let mut received = attached.filter_map(|message| match message {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(received.next().map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

/// A part of the parts. A peer that is gone is an error and never SIGPIPE, whatever a script has made of that signal.
pub fn send(stream: &UnixStream, parts: &[IoSlice<'_>], wait: bool) -> nix::Result<usize> {
    let flags = if wait { NO_SIGNAL } else { NO_SIGNAL | MsgFlags::MSG_DONTWAIT };
    sendmsg::<()>(stream.as_raw_fd(), parts, &[], flags, None)
}

/// Appends what is there, up to the room that the buffer has, without waiting. Zero bytes mean the end.
pub fn receive(stream: &UnixStream, buffer: &mut BytesMut) -> io::Result<usize> {
    // SAFETY: receiving writes to the slice and never reads from it or makes it uninitialised.
    let room = unsafe { buffer.chunk_mut().as_uninit_slice_mut() };
    let read = SockRef::from(stream).recv_with_flags(room, libc::MSG_DONTWAIT)?;
    // SAFETY: so many bytes of the room have just been written.
    unsafe { buffer.advance_mut(read) };
    Ok(read)
}

/// Waits until there is something to receive, an error or the end included; `WouldBlock` after `timeout`.
///
/// A blocking receive would do, but the kernel wakes it as well whenever the peer reads, and charges the peer with some
/// 15 µs for that.
#[cfg(feature = "python")]
pub fn wait_readable(stream: &UnixStream, timeout: PollTimeout) -> io::Result<()> {
    match poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(stream), PollFlags::POLLIN)], timeout)? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

/// Has the event loop watch it for `interest` alone. It must not be watched already.
pub fn watch(stream: Rc<UnixStream>, interest: Interest) -> io::Result<AsyncFd<Rc<UnixStream>>> {
    // SAFETY: what owns the descriptor goes along, and does not change it.
    unsafe { AsyncFd::register_with_interest(stream, interest) }.map_err(io::Error::from)
}
