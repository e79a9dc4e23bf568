//! Large request bodies in memory that the front shares with its worker processes.
//!
//! A body that is sent through a socket is copied into the kernel and out of it. A body in shared
//! memory is copied once, by the worker, into the object that the script gets. The front owns the
//! memory and decides where each body is; a worker can only read. `dispatch/transport/socket.rs`
//! hands the file to each worker that connects, a job says where its body is (`frame::Place`).
//!
//! The room of a body may hold another one as soon as its [`Extent`] is dropped. The front drops it
//! when the job has been answered, lost, or cancelled after a revoke. A worker reads a body before
//! it claims the job, so it has read the bodies of all jobs that it starts (`claims.rs`). For a
//! revoked job it may read another body's bytes, and it drops them.
//!
//! [`Arena`] is used in the front's event loop, [`SharedFile`] on a worker's main thread. Linux
//! only; elsewhere, and whenever something fails here, bodies are sent through the socket.

#![allow(unsafe_code)]

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests;

use std::{
    cell::RefCell,
    cmp::min,
    fs::File,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    rc::Rc,
    slice,
};

use nix::{
    errno::Errno,
    fcntl::{fallocate, FallocateFlags},
    libc::off_t,
};

use crate::{
    fd::Identity,
    ipc::{
        frame::Place,
        mapping::{Access, Mapping},
        memory_file,
    },
};

/// Rooms begin at multiples of this, because no system has larger pages for such files.
const ALIGNMENT: usize = 2 << 20;
/// How many bytes of a room the front and the worker map. They write and read the rest by system
/// calls, which takes half as long again. The limit bounds the address space that a body takes when
/// its length is announced, and the memory that counts as the worker's.
const MAPPED: usize = 16 << 20;
/// Smallest and largest step in which a body gets memory. A step is a quarter of what has arrived,
/// because a client that announces a large body and stops early must not take much more memory than
/// it has sent.
const STEPS: (usize, usize) = (16 << 10, 1 << 20);
/// How much memory free rooms keep while large bodies arrive, because allocating it again takes
/// longer than the copy.
const KEPT_FREE: usize = 64 << 20;

/// The memory, as the front has it.
#[derive(Clone, Debug)]
pub struct Arena(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    /// The same file, opened read-only, for the workers.
    readable: File,
    /// Bytes from the start of one room to that of the next. Bytes that were never written take no
    /// memory.
    stride: usize,
    rooms: RefCell<Rooms>,
}

#[derive(Debug, Default)]
struct Rooms {
    /// Free rooms that keep their memory.
    warm: Vec<Room>,
    /// Offsets of free rooms without memory.
    cold: Vec<u64>,
    /// How many rooms have ever been used.
    count: u64,
}

/// A place for one body at a time.
#[derive(Debug)]
struct Room {
    offset: u64,
    /// The mapping of its beginning.
    mapping: Mapping,
    /// How many bytes from its start have memory.
    resident: usize,
}

impl Room {
    /// How many of its first `length` bytes are mapped.
    fn mapped(&self, length: usize) -> usize {
        min(length, self.mapping.length())
    }
}

impl Arena {
    /// An empty arena for bodies of up to `largest` bytes.
    pub fn new(largest: usize) -> io::Result<Self> {
        let file = memory_file::growing(c"azmlinfsrv-bodies")?;
        let readable = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "bodies may be too large to share them");
        let stride = largest.max(1).checked_next_multiple_of(ALIGNMENT).ok_or_else(too_large)?;
        Ok(Self(Rc::new(Inner { file, readable, stride, rooms: RefCell::default() })))
    }

    /// A worker opens the file read-only through this descriptor.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.0.readable.as_fd()
    }

    /// Takes a room for a body of `length` bytes.
    pub fn begin(&self, length: usize) -> io::Result<Filling> {
        if length > self.0.stride {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let room = self.0.take_room(min(length, MAPPED))?;
        Ok(Filling { extent: Extent { arena: self.clone(), room: Some(room), length }, filled: 0 })
    }

    /// Returns the memory of all free rooms to the system.
    pub fn give_back(&self) {
        let warm = std::mem::take(&mut self.0.rooms.borrow_mut().warm);
        for room in warm {
            self.0.cool(room);
        }
    }
}

impl Inner {
    /// A free room of which the first `mapped` bytes are mapped.
    fn take_room(&self, mapped: usize) -> io::Result<Room> {
        let warm = self.rooms.borrow_mut().warm.pop();
        if let Some(room) = warm {
            if room.mapping.length() >= mapped {
                return Ok(room);
            }
            self.cool(room);
        }
        let mut rooms = self.rooms.borrow_mut();
        let offset = match rooms.cold.last() {
            Some(offset) => *offset,
            None => {
                let stride = self.stride as u64;
                let offset = rooms.count.checked_mul(stride).ok_or(io::ErrorKind::OutOfMemory)?;
                self.file.set_len(offset.checked_add(stride).ok_or(io::ErrorKind::OutOfMemory)?)?;
                rooms.count += 1;
                rooms.cold.push(offset);
                offset
            }
        };
        let mapping = Mapping::new(&self.file, offset, mapped, Access::Write)?;
        rooms.cold.pop();
        Ok(Room { offset, mapping, resident: 0 })
    }

    fn free(&self, room: Room) {
        let kept: usize = self.rooms.borrow().warm.iter().map(|room| room.resident).sum();
        if kept + room.resident > KEPT_FREE {
            self.cool(room);
        } else {
            self.rooms.borrow_mut().warm.push(room);
        }
    }

    /// Returns the memory of a free room to the system. It covers the whole room, because a worker
    /// that still reads for a revoked job may have caused memory to be allocated anywhere in it.
    fn cool(&self, room: Room) {
        if let (Ok(offset), Ok(length)) = (off_t::try_from(room.offset), off_t::try_from(self.stride)) {
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            while fallocate(self.file.as_fd(), hole, offset, length) == Err(Errno::EINTR) {}
        }
        self.rooms.borrow_mut().cold.push(room.offset);
    }

    /// Gives the room memory for at least `needed` bytes. If there is none left, this returns an
    /// error, where writing to a mapped page without memory would raise SIGBUS.
    fn warm_up(&self, room: &mut Room, needed: usize) -> io::Result<()> {
        while room.resident < needed {
            let step = (room.resident / 4).clamp(STEPS.0, STEPS.1).min(self.stride - room.resident);
            let start = off_t::try_from(room.offset + room.resident as u64).map_err(|_| io::ErrorKind::OutOfMemory)?;
            let step_length = off_t::try_from(step).map_err(|_| io::ErrorKind::OutOfMemory)?;
            match fallocate(self.file.as_fd(), FallocateFlags::empty(), start, step_length) {
                Ok(()) => room.resident += step,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A body that is arriving.
#[derive(Debug)]
pub struct Filling {
    extent: Extent,
    filled: usize,
}

impl Filling {
    /// Adds a part of the body. After an error no byte of the part has been added.
    pub fn push(&mut self, part: &[u8]) -> io::Result<()> {
        let end = self.filled + part.len();
        let Some(room) = &mut self.extent.room else { return Err(io::ErrorKind::NotFound.into()) };
        if end > self.extent.length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let arena = &self.extent.arena.0;
        arena.warm_up(room, end)?;
        let start = room.mapped(self.filled);
        let (mapped, beyond) = part.split_at(room.mapped(end) - start);
        // SAFETY: these bytes are mapped and have memory, and no other code of this process uses
        // them.
        unsafe {
            std::ptr::copy_nonoverlapping(mapped.as_ptr(), room.mapping.start().add(start).as_ptr(), mapped.len());
        }
        arena.file.write_all_at(beyond, room.offset + (self.filled + mapped.len()) as u64)?;
        self.filled = end;
        Ok(())
    }

    /// Copies the parts that have been added so far.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        self.extent.first(self.filled)
    }

    /// Ends the body, because all parts have arrived.
    pub fn finish(mut self) -> Extent {
        self.extent.length = self.filled;
        self.extent
    }
}

/// A complete body. Dropping it frees its room for other bodies.
#[derive(Debug)]
pub struct Extent {
    arena: Arena,
    /// `None` only while the extent is being dropped.
    room: Option<Room>,
    length: usize,
}

impl Extent {
    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Copies its bytes.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        self.first(self.length)
    }

    fn first(&self, length: usize) -> io::Result<Vec<u8>> {
        let Some(room) = &self.room else { return Err(io::ErrorKind::NotFound.into()) };
        // SAFETY: this many bytes are mapped for as long as the room lives. Only `Filling::push`
        // writes to them, which takes `&mut`. Workers cannot write.
        let mapped = unsafe { slice::from_raw_parts(room.mapping.start().as_ptr(), room.mapped(length)) };
        let mut bytes = mapped.to_vec();
        bytes.resize(length, 0);
        self.arena.0.file.read_exact_at(&mut bytes[mapped.len()..], room.offset + mapped.len() as u64)?;
        Ok(bytes)
    }

    /// Where a worker finds the body.
    pub fn place(&self) -> Place {
        let offset = self.room.as_ref().map_or(0, |room| room.offset);
        Place { offset, length: self.length as u64 }
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        if let Some(room) = self.room.take() {
            self.arena.0.free(room);
        }
    }
}

/// The memory, as a worker reads it.
#[derive(Debug)]
pub struct SharedFile {
    file: File,
    /// Which file it is, to notice that a script has closed it.
    identity: Identity,
    /// The beginning of the last body: the next one is likely to be there too, and mapping costs
    /// half as much as copying.
    last: Option<(u64, Mapping)>,
}

impl SharedFile {
    /// Takes the descriptor that the front sent from [`Arena::file`].
    pub fn new(file: OwnedFd) -> io::Result<Self> {
        Ok(Self { identity: Identity::of(&file)?, last: None, file: file.into() })
    }

    /// Unmaps the file until the next [`SharedFile::read`].
    pub fn rest(&mut self) {
        self.last = None;
    }

    /// Copies the body at `place` into `target`, which must have the same length.
    pub fn read(&mut self, place: Place, target: &mut [MaybeUninit<u8>]) -> io::Result<()> {
        let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if Identity::of(&self.file)? != self.identity {
            return wrong("the file of shared bodies was closed");
        }
        let length = self.file.metadata()?.len();
        let end = place.offset.checked_add(place.length);
        if target.len() as u64 != place.length || end.is_none_or(|end| end > length) {
            return wrong("a shared body is not where it should be");
        }
        let mapped = self.map(place).map_or(0, |mapping| {
            let mapped = min(target.len(), mapping.length());
            // SAFETY: this many bytes are mapped. They are within the file, whose size is sealed.
            // If the front writes there meanwhile, the copy is thrown away, as the module says.
            unsafe { std::ptr::copy_nonoverlapping(mapping.start().as_ptr(), target.as_mut_ptr().cast(), mapped) };
            mapped
        });
        // SAFETY: reading writes to the slice and never reads from it or makes it uninitialised.
        let beyond = unsafe { slice::from_raw_parts_mut(target[mapped..].as_mut_ptr().cast(), target.len() - mapped) };
        self.file.read_exact_at(beyond, place.offset + mapped as u64)
    }

    /// Maps the beginning of a body; `None` if this process has no address space left for it. A
    /// script may limit that.
    fn map(&mut self, place: Place) -> Option<&Mapping> {
        let length = min(usize::try_from(place.length).ok()?, MAPPED);
        let fits = |(offset, mapping): &mut (u64, Mapping)| *offset == place.offset && mapping.length() >= length;
        let mapping = match self.last.take_if(fits) {
            Some((_, mapping)) => mapping,
            None => {
                self.last = None;
                Mapping::new(&self.file, place.offset, length, Access::Read).ok()?
            }
        };
        Some(&self.last.insert((place.offset, mapping)).1)
    }
}
