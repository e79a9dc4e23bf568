//! Parts of files in this process's memory.
//!
//! An access beyond the end of the file, or to memory that the system cannot give, ends the process
//! with SIGBUS. So callers map only what has been written (`memory_file.rs`, `body_arena.rs`). Who
//! may read or write the memory, and how, is up to them too.

#![allow(unsafe_code)]

use std::{fs::File, io, num::NonZeroUsize, ptr::NonNull};

use nix::{
    libc::off_t,
    sys::mman::{mmap, munmap, MapFlags, ProtFlags},
};

/// What this process may do with the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it. It has been written already.
    #[cfg(target_os = "linux")]
    Read,
    /// Read and write it.
    Write,
}

/// Memory that all mappings of the same part of a file share.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: the mapping belongs to no thread; who may use it is decided by its owners.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `length` bytes of the file from `offset` on.
    pub fn new(file: &File, offset: u64, length: usize, access: Access) -> io::Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (access, flags) = match access {
            // Map all pages at once, because each would cost a page fault.
            #[cfg(target_os = "linux")]
            Access::Read => (ProtFlags::PROT_READ, MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE),
            Access::Write => (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED),
        };
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { mmap(None, length, access, flags, file, offset) }?;
        Ok(Self { start: start.cast(), length })
    }

    /// Its first byte. The address is a multiple of the page size.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its length in bytes.
    #[cfg(target_os = "linux")]
    pub fn length(&self) -> usize {
        self.length.get()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and unmapped only here. It fails only for an address that is not
        // mapped.
        let _ = unsafe { munmap(self.start.cast(), self.length.get()) };
    }
}
