//! A large job whose body is still arriving from the front. The body is received into the `bytes`
//! object that the script gets.
//!
//! A body in any other buffer would have to be copied into that object. Used on the worker's main
//! thread by `socket.rs`.

#![allow(unsafe_code)]

use std::{mem::MaybeUninit, slice};

use bytes::Bytes;
use pyo3::{ffi, prelude::*, pybacked::PyBackedBytes, types::PyBytes};

use super::Arrived;
use crate::{
    ipc::frame::{Frame, Job, Kind},
    worker::convert::inference,
};

/// A job whose body has not arrived completely.
pub(super) struct LargeBody {
    head: Bytes,
    /// The Python object of the body. No other code has a reference to it before the body is
    /// complete.
    object: Py<PyBytes>,
    /// Unused bytes before the body.
    padding: usize,
    /// Length of the object.
    length: usize,
    filled: usize,
}

impl LargeBody {
    /// `first` is the part of the body that has arrived, `length` the size of the whole body, and `padding` the number of
    /// unused bytes before it.
    pub(super) fn new(py: Python<'_>, head: Bytes, padding: usize, length: usize, first: &[u8]) -> PyResult<Self> {
        let length = padding + length;
        let size = ffi::Py_ssize_t::try_from(length)?;
        // SAFETY: without a source the object's bytes are left as they are; it is a new reference,
        // or null with an error.
        let object = unsafe {
            let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), size);
            Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked()
        };
        let mut large_body = Self { head, object: object.unbind(), padding, length, filled: 0 };
        large_body.room()[..padding].fill(MaybeUninit::new(0));
        large_body.filled = padding;
        for (room, byte) in large_body.room().iter_mut().zip(first) {
            room.write(*byte);
        }
        large_body.filled += first.len();
        Ok(large_body)
    }

    /// The memory for the next bytes; empty once all have arrived. Needs no GIL.
    pub(super) fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the object holds `length` bytes, and nobody else has it.
        unsafe {
            let start = ffi::PyBytes_AS_STRING(self.object.as_ptr()).cast_mut();
            slice::from_raw_parts_mut(start.add(self.filled).cast(), self.length - self.filled)
        }
    }

    /// # Safety
    ///
    /// The caller must have written the first `written` bytes of [`LargeBody::room`].
    pub(super) unsafe fn advance(&mut self, written: usize) {
        self.filled += written;
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == self.length
    }

    /// The job, once all of it is there. Its object has the body, and for a request of the Open Inference Protocol a few bytes
    /// before it.
    pub(super) fn finish(self, py: Python<'_>) -> Arrived {
        let body = Bytes::from_owner(PyBackedBytes::from(self.object.bind(py).clone())).slice(self.padding..);
        Arrived { frame: Frame { kind: Kind::Job, head: self.head, body }, object: Some(self.object) }
    }
}

/// How many bytes must precede the body, so that tensors in it are aligned. Zero for a head that cannot be decoded: then the
/// job is not run.
pub(super) fn padding(head: &Bytes) -> usize {
    let frame = Frame { kind: Kind::Job, head: head.clone(), body: Bytes::new() };
    let job = Job::decode(&frame).ok();
    job.and_then(|job| job.inference).map_or(0, |inference| inference::padding(&inference))
}
