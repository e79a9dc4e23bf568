//! Descriptors of sockets and files: takes over those that Python has opened, and notices those
//! that a script has closed.
//!
//! Used when the front and a worker start, and by a worker before it uses a descriptor again.

#![allow(unsafe_code)]

use std::io;
#[cfg(unix)]
use std::os::fd::AsFd;

/// The result of Python's `socket.detach()` on Unix: a file descriptor.
#[cfg(all(unix, feature = "python"))]
pub type Raw = std::os::fd::RawFd;
/// The socket as an owned object.
#[cfg(all(unix, feature = "python"))]
pub type Owned = std::os::fd::OwnedFd;
/// The result of Python's `socket.detach()` on Windows: a handle.
#[cfg(windows)]
pub type Raw = std::os::windows::io::RawSocket;
/// The socket as an owned object.
#[cfg(windows)]
pub type Owned = std::os::windows::io::OwnedSocket;

/// The socket as an owned object, or an error if it cannot be one.
#[cfg(feature = "python")]
pub fn take_over(raw: Raw) -> io::Result<Owned> {
    #[cfg(unix)]
    use std::os::fd::FromRawFd as _;
    #[cfg(windows)]
    use std::os::windows::io::FromRawSocket as _;

    #[cfg(unix)]
    if raw < 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a negative file descriptor"));
    }
    // SAFETY: the Python callers (`supervise/front.py`) pass the result of `socket.detach()` or
    // `os.dup()`, an open socket or file that no other object owns or closes.
    #[cfg(unix)]
    let owned = unsafe { Owned::from_raw_fd(raw) };
    // SAFETY: as above.
    #[cfg(windows)]
    let owned = unsafe { Owned::from_raw_socket(raw) };
    Ok(owned)
}

/// Which file or socket a descriptor refers to. A script may close a descriptor that it did not
/// open, and the next file that it opens may get the same number.
#[cfg(unix)]
#[cfg_attr(not(any(target_os = "linux", feature = "python")), allow(dead_code))]
#[derive(Debug, PartialEq, Eq)]
pub struct Identity(nix::libc::dev_t, nix::libc::ino_t);

#[cfg(unix)]
#[cfg_attr(not(any(target_os = "linux", feature = "python")), allow(dead_code))]
impl Identity {
    /// What the descriptor refers to now.
    pub fn of(descriptor: impl AsFd) -> io::Result<Self> {
        let status = nix::sys::stat::fstat(descriptor)?;
        Ok(Self(status.st_dev, status.st_ino))
    }
}

/// A descriptor that stays open while the script runs. The script may close it and open a file with
/// the same number. Dropping this closes the descriptor only if it still refers to the same file,
/// so it never closes a file of the script.
#[cfg(all(unix, feature = "python"))]
pub struct ExposedFd {
    descriptor: std::mem::ManuallyDrop<Owned>,
    /// `None` if it was closed already.
    identity: Option<Identity>,
}

#[cfg(all(unix, feature = "python"))]
impl ExposedFd {
    /// Notes what the descriptor refers to now.
    pub fn new(descriptor: Owned) -> Self {
        Self { identity: Identity::of(&descriptor).ok(), descriptor: std::mem::ManuallyDrop::new(descriptor) }
    }

    /// The descriptor; `None` if the script has closed it.
    pub fn get(&self) -> Option<&Owned> {
        let is_same = self.identity.is_some() && Identity::of(&*self.descriptor).ok() == self.identity;
        is_same.then_some(&*self.descriptor)
    }
}

#[cfg(all(unix, feature = "python"))]
impl Drop for ExposedFd {
    fn drop(&mut self) {
        if self.get().is_some() {
            // SAFETY: dropped here alone, once.
            unsafe { std::mem::ManuallyDrop::drop(&mut self.descriptor) };
        }
    }
}
