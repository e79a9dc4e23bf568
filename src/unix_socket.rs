//! One send and one receive on the Unix socket between the front and a worker, without waiting or with.
//!
//! Used at both ends: in the front's event loop (`dispatch/socket.rs`), and on a worker's main thread (`worker/socket.rs`).

#![allow(unsafe_code)]

use std::{
    io::{self, IoSlice},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    rc::Rc,
};

use bytes::{BufMut as _, BytesMut};
#[cfg(feature = "python")]
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::{
    libc,
    sys::socket::{sendmsg, MsgFlags},
};
use socket2::SockRef;
use tokio::io::{unix::AsyncFd, Interest};

/// A part of the parts. A peer that is gone is an error and never SIGPIPE, whatever a script has made of that signal.
pub fn send(stream: &UnixStream, parts: &[IoSlice<'_>], wait: bool) -> nix::Result<usize> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let flags = MsgFlags::MSG_NOSIGNAL;
    // Here the worker's socket was told so when it was made (`SO_NOSIGPIPE`, by the standard library). In the front, where
    // no script runs, Python has the signal ignored.
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let flags = MsgFlags::empty();
    let flags = if wait { flags } else { flags | MsgFlags::MSG_DONTWAIT };
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
