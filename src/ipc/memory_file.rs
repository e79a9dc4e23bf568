//! Files in memory, without a name, that two processes map.
//!
//! Makes a mapping of such a file safe: an access to mapped memory beyond the file's memory ends
//! the process with SIGBUS. So the memory is written before it is mapped, no folder and no disk is
//! involved, and the size is sealed: a script can open the file again through `/proc/<pid>/fd` or
//! `/proc/<pid>/map_files`, but cannot make it shorter. Used by the front, which makes the job
//! counters (`claims.rs`) and the memory of large bodies (`body_arena.rs`).
//!
//! Linux has `memfd_create` for this. Other Unix systems have `shm_open`, whose name is removed at
//! once; their kernels back it with anonymous memory, and macOS accepts one `ftruncate` only, so it
//! cannot be made shorter either.

use std::{fs::File, io};

#[cfg(target_os = "linux")]
pub use self::linux::{fixed, growing};
#[cfg(not(target_os = "linux"))]
pub use self::posix::fixed;

#[cfg(target_os = "linux")]
mod linux {
    use std::{ffi::CStr, os::unix::fs::FileExt as _};

    use nix::{
        errno::Errno,
        fcntl::{fcntl, FcntlArg, SealFlag},
        libc,
        sys::memfd::{memfd_create, MFdFlags},
    };

    use super::{io, File};

    /// Makes a file of `length` zero bytes. Its size can never change.
    pub fn fixed(name: &CStr, length: usize) -> io::Result<File> {
        let file = create(name)?;
        // Write the zeros instead of only setting the length: if there is no memory, this returns
        // an error, where a later access would raise SIGBUS.
        file.write_all_at(&vec![0; length], 0)?;
        seal(&file, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)?;
        Ok(file)
    }

    /// Makes an empty file that can grow but never shrink. A process that makes it longer must
    /// allocate the memory that is mapped.
    pub fn growing(name: &CStr) -> io::Result<File> {
        let file = create(name)?;
        seal(&file, SealFlag::F_SEAL_SHRINK)?;
        Ok(file)
    }

    fn create(name: &CStr) -> io::Result<File> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        // Systems with vm.memfd_noexec=2 require the flag (memfd_create(2)). Linux before 6.3 does
        // not know it.
        let no_exec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
        match memfd_create(name, flags | no_exec) {
            Err(Errno::EINVAL) => Ok(memfd_create(name, flags)?.into()),
            created => Ok(created?.into()),
        }
    }

    fn seal(file: &File, seals: SealFlag) -> io::Result<()> {
        fcntl(file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
        Ok(())
    }
}

#[cfg(any(not(target_os = "linux"), test))]
mod posix {
    use std::ffi::CStr;

    use nix::{
        fcntl::OFlag,
        sys::{
            mman::{shm_open, shm_unlink},
            stat::Mode,
        },
    };

    use super::{io, File};

    /// Makes a file of `length` zero bytes.
    pub fn fixed(_name: &CStr, length: usize) -> io::Result<File> {
        // macOS accepts 31 bytes. A name that is taken is an error, and nobody can guess this one.
        let name = format!("/az-{}", &uuid::Uuid::new_v4().simple().to_string()[..24]);
        let file = File::from(shm_open(
            &*name,
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL,
            Mode::S_IRUSR | Mode::S_IWUSR,
        )?);
        shm_unlink(&*name)?;
        file.set_len(length as u64)?;
        Ok(file)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    fn read(file: &File) -> Vec<u8> {
        let mut bytes = vec![1; 8];
        file.read_exact_at(&mut bytes, 0).expect("eight bytes");
        bytes
    }

    #[test]
    fn a_file_without_memfd_is_as_long_and_has_no_name() {
        let file = posix::fixed(c"test", 8).expect("memory");
        assert_eq!((file.metadata().expect("metadata").nlink(), read(&file)), (0, vec![0; 8]));
    }

    #[cfg(target_os = "linux")]
    mod sealed {
        use std::{fs::OpenOptions, os::fd::AsRawFd as _};

        use super::*;

        /// The same file, opened as a script can do it.
        fn opened_again(file: &File) -> File {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            OpenOptions::new().read(true).write(true).open(path).expect("the same file")
        }

        #[test]
        fn a_fixed_size_is_allocated_and_cannot_change() {
            let file = fixed(c"test", 8).expect("memory");
            assert_eq!(read(&file), [0; 8]);
            assert!(file.metadata().expect("metadata").blocks() > 0, "it has memory before it is mapped");
            let again = opened_again(&file);
            for length in [0, 4, 9] {
                assert_eq!(again.set_len(length).expect_err("sealed").kind(), io::ErrorKind::PermissionDenied);
            }
        }

        #[test]
        fn a_growing_file_cannot_be_made_shorter() {
            let file = growing(c"test").expect("memory");
            file.set_len(4096).expect("it grows");
            let again = opened_again(&file);
            again.set_len(8192).expect("it grows");
            assert_eq!(again.set_len(4096).expect_err("sealed").kind(), io::ErrorKind::PermissionDenied);
        }
    }
}
