//! Numbers in memory that all processes of one server share.
//!
//! The supervisor makes the memory before it forks, so its children have the same mapping. Nothing unmaps it: it ends with
//! the last process. The values are atomic, so that a process can die at any time and leave no lock behind.

use std::{io, sync::atomic::AtomicU64};

/// Makes `count` zeros that this process and all that are forked from it share.
#[cfg(unix)]
#[allow(unsafe_code)]
pub fn new(count: usize) -> io::Result<&'static [AtomicU64]> {
    use super::mapping::{Access, Mapping};

    let length = count * size_of::<AtomicU64>();
    let file = super::memory_file::fixed(c"azmlinfsrv-metrics", length)?;
    let mapping = std::mem::ManuallyDrop::new(Mapping::new(&file, 0, length, Access::Write)?);
    // SAFETY: the mapping is page aligned, holds `count` words, and is never unmapped. The file is as long and has its
    // memory, and its size is sealed. All processes use it only through atomic operations.
    Ok(unsafe { std::slice::from_raw_parts(mapping.start().cast().as_ptr(), count) })
}

/// Makes `count` zeros. Without `fork` there is only one process.
#[cfg(not(unix))]
pub fn new(count: usize) -> io::Result<&'static [AtomicU64]> {
    Ok(Vec::leak((0..count).map(|_| AtomicU64::new(0)).collect()))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn words_begin_at_zero_and_keep_what_is_stored() {
        let words = super::new(1000).expect("memory");
        assert!(words.len() == 1000 && words.iter().all(|word| word.load(Relaxed) == 0));
        words[999].store(7, Relaxed);
        assert_eq!(words[999].load(Relaxed), 7);
        // An empty file has no memory to share. Without `fork`, the words are ordinary memory of any length.
        assert_eq!(super::new(0).is_err(), cfg!(unix));
    }
}
