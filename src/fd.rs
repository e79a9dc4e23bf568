//! Taking over descriptors that Python opened: the only unsafe code of the crate.
//!
//! Runs once at the start of a child process, before any thread of this crate exists.

#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The descriptor as an owned object, or an error if it is not open in this process.
pub fn take_over(fd: RawFd) -> std::io::Result<OwnedFd> {
    if fd < 0 {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "a negative file descriptor"));
    }
    // SAFETY: the Python callers (`front.py`) pass what `socket.detach()` returned: an open descriptor that no other
    // object owns or closes.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
