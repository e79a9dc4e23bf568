//! Taking over sockets that Python opened.
//!
//! Runs once, when the front starts.

#![allow(unsafe_code)]

use std::io;

/// What Python's `socket.detach()` returns: a file descriptor.
#[cfg(unix)]
pub type Raw = std::os::fd::RawFd;
/// The socket as an owned object.
#[cfg(unix)]
pub type Owned = std::os::fd::OwnedFd;
/// What Python's `socket.detach()` returns: a handle.
#[cfg(windows)]
pub type Raw = std::os::windows::io::RawSocket;
/// The socket as an owned object.
#[cfg(windows)]
pub type Owned = std::os::windows::io::OwnedSocket;

/// The socket as an owned object, or an error if it cannot be one.
pub fn take_over(raw: Raw) -> io::Result<Owned> {
    #[cfg(unix)]
    use std::os::fd::FromRawFd as _;
    #[cfg(windows)]
    use std::os::windows::io::FromRawSocket as _;

    #[cfg(unix)]
    if raw < 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a negative file descriptor"));
    }
    // SAFETY: the Python callers (`front.py`) pass what `socket.detach()` returned: an open socket that no other object
    // owns or closes.
    #[cfg(unix)]
    let owned = unsafe { Owned::from_raw_fd(raw) };
    // SAFETY: as above.
    #[cfg(windows)]
    let owned = unsafe { Owned::from_raw_socket(raw) };
    Ok(owned)
}
