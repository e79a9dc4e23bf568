//! Items on disk, for receivers that do not answer (`--telemetry_storage`).
//!
//! One file for each batch that failed. A file is deleted when the receiver has its items, or when it is too old, or when
//! younger files need its room. Several servers may share the folder: whoever sends a file holds a lock on it, which the
//! system releases when that process ends. The folder and its files are private, because items may hold replies.
//!
//! Used by the exporter's thread, and by the front's thread at the end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

/// The folder below the one that the setting names, so that no mode of a shared folder is changed.
const FOLDER: &str = "azmlinfsrv-telemetry";
/// What names of stored batches end in.
const SUFFIX: &str = ".items";
/// Bytes of all files together.
const MAX_BYTES: u64 = 50 << 20;
/// Older items are of no use; Application Insights refuses them.
const MAX_AGE: Duration = Duration::from_secs(48 * 3600);

/// The folder with the files.
#[derive(Debug)]
pub struct Storage {
    folder: PathBuf,
    max_bytes: u64,
}

/// A file, by the parts of its name: when it was written, whose items it has, and how many.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    millis: u128,
    exporter: String,
    items: usize,
    file: String,
}

impl Name {
    fn parse(file: &str) -> Option<Self> {
        let mut parts = file.strip_suffix(SUFFIX)?.split('-');
        let millis = parts.next()?.parse().ok()?;
        let exporter = parts.next()?.to_owned();
        let items = parts.next()?.parse().ok()?;
        Some(Self { millis, exporter, items, file: file.to_owned() })
    }
}

/// A batch that was read from the disk. Nobody else sends it as long as this exists.
pub struct Stored {
    path: PathBuf,
    /// The encoded items.
    pub items: Vec<Bytes>,
    _lock: File,
}

impl Stored {
    /// Deletes the file: its items have been accepted or dropped.
    pub fn delete(self) {
        // If this fails, the items are sent again, which is better than to lose items.
        let _ = fs::remove_file(&self.path);
    }
}

impl Storage {
    /// Makes the private folder.
    pub fn open(parent: &Path) -> io::Result<Self> {
        let folder = parent.join(FOLDER);
        fs::create_dir_all(parent)?;
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        #[cfg(unix)]
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Ok(Self { folder, max_bytes: MAX_BYTES })
    }

    /// Writes a batch. Returns how many items of older batches had to go to make room.
    pub fn store(&self, exporter: &str, items: &[Bytes], now: SystemTime) -> io::Result<usize> {
        let mut content = Vec::new();
        for item in items {
            content.extend_from_slice(&(item.len() as u64).to_le_bytes());
            content.extend_from_slice(item);
        }
        let lost = self.tidy(now, content.len() as u64)?;
        let millis = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{millis:015}-{exporter}-{}-{unique}{SUFFIX}", items.len());
        let unfinished = self.folder.join(format!("{name}.part"));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&unfinished).and_then(|mut file| file.write_all(&content));
        // A reader must never see half a file.
        if let Err(error) = written.and_then(|()| fs::rename(&unfinished, self.folder.join(&name))) {
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        Ok(lost)
    }

    /// Takes the oldest batch of an exporter that nobody else sends.
    pub fn take(&self, exporter: &str) -> io::Result<Option<Stored>> {
        for name in self.names()?.into_iter().filter(|name| name.exporter == exporter) {
            let path = self.folder.join(&name.file);
            let Ok(mut file) = File::open(&path) else { continue };
            // Another process has it, or has just deleted it.
            if file.try_lock().is_err() || !path.exists() {
                continue;
            }
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            return Ok(Some(Stored { path, items: split(&content), _lock: file }));
        }
        Ok(None)
    }

    /// Deletes files that are too old, then the oldest ones until `needed` more bytes have room. Returns how many items that
    /// were.
    pub fn tidy(&self, now: SystemTime, needed: u64) -> io::Result<usize> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut files = Vec::new();
        for name in self.names()? {
            // A file that has gone meanwhile takes no room.
            let size = fs::metadata(self.folder.join(&name.file)).map_or(0, |data| data.len());
            files.push((name, size));
        }
        let mut total = files.iter().map(|(_, size)| size).sum::<u64>() + needed;
        let mut lost = 0;
        for (name, size) in files {
            let too_old = name.millis + MAX_AGE.as_millis() < now;
            if !too_old && total <= self.max_bytes {
                break;
            }
            if fs::remove_file(self.folder.join(&name.file)).is_ok() {
                lost += name.items;
            }
            total -= size;
        }
        Ok(lost)
    }

    /// All batches, oldest first.
    fn names(&self) -> io::Result<Vec<Name>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            names.extend(entry?.file_name().to_str().and_then(Name::parse));
        }
        names.sort();
        Ok(names)
    }
}

/// The items of a file. What is damaged at the end is left out.
fn split(mut content: &[u8]) -> Vec<Bytes> {
    let mut items = Vec::new();
    while let Some((length, rest)) = content.split_first_chunk::<8>() {
        let Some((item, rest)) =
            usize::try_from(u64::from_le_bytes(*length)).ok().and_then(|n| rest.split_at_checked(n))
        else {
            break;
        };
        items.push(Bytes::copy_from_slice(item));
        content = rest;
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that is removed at the end of the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("azmlinfsrv-storage-{}", uuid::Uuid::new_v4())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn batches_come_back_in_order_for_their_exporter_and_survive_a_restart() {
        let folder = Folder::new();
        let storage = Storage::open(&folder.0).expect("a folder");
        let batch = |text: &str| vec![Bytes::copy_from_slice(text.as_bytes()), Bytes::new()];
        storage.store("b", &batch("second"), at(2)).expect("stored");
        storage.store("a", &batch("other"), at(3)).expect("stored");
        storage.store("b", &batch("first"), at(1)).expect("stored");
        drop(storage);
        let storage = Storage::open(&folder.0).expect("the same folder");
        for expected in ["first", "second"] {
            let stored = storage.take("b").expect("readable").expect("a batch");
            assert_eq!(stored.items, batch(expected));
            stored.delete();
        }
        assert!(storage.take("b").expect("readable").is_none());
        assert!(storage.take("a").expect("readable").is_some());
    }

    #[test]
    fn a_batch_that_is_being_sent_is_nobody_elses() {
        let folder = Folder::new();
        let storage = Storage::open(&folder.0).expect("a folder");
        storage.store("a", &[Bytes::from_static(b"x")], at(1)).expect("stored");
        let held = storage.take("a").expect("readable");
        assert!(held.is_some());
        let other = Storage::open(&folder.0).expect("the same folder");
        assert!(other.take("a").expect("readable").is_none());
        drop(held);
        assert!(other.take("a").expect("readable").is_some(), "a batch that was not deleted is there again");
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room_or_they_are_too_old() {
        let folder = Folder::new();
        let mut storage = Storage::open(&folder.0).expect("a folder");
        storage.max_bytes = 250;
        let batch = vec![Bytes::from_static(&[0; 42]); 2];
        let lost: Vec<_> = (1..=4).map(|day| storage.store("a", &batch, at(day)).expect("stored")).collect();
        assert_eq!(lost, [0, 0, 2, 2]);
        let days = |days: u64| at(days * 24 * 3600 * 1000 + 4);
        assert_eq!(storage.tidy(days(2), 0).expect("tidy"), 2, "the one that is older than 48 hours");
        assert_eq!(storage.tidy(days(3), 0).expect("tidy"), 2);
    }

    #[cfg(unix)]
    #[test]
    fn folder_and_files_are_private_and_the_shared_parent_is_left_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = Folder::new();
        fs::create_dir(&folder.0).expect("a folder");
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).expect("a mode");
        let storage = Storage::open(&folder.0).expect("a folder");
        storage.store("a", &[Bytes::from_static(b"x")], at(1)).expect("stored");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder.0), mode(&storage.folder)), (0o755, 0o700));
        let files: Vec<_> = fs::read_dir(&storage.folder).expect("readable").flatten().collect();
        assert_eq!(files.iter().map(|file| mode(&file.path())).collect::<Vec<_>>(), [0o600]);
    }

    #[test]
    fn damaged_and_strange_files_do_no_harm() {
        let folder = Folder::new();
        let storage = Storage::open(&folder.0).expect("a folder");
        for (name, content) in [
            ("notes.txt", &b"x"[..]),
            ("1-a-x-y.items", b"x"),
            ("000000000000001-a-1-x.items", &[3, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'c', 9, 9]),
            ("000000000000002-a-1-x.items", &[0xff; 20]),
            ("000000000000003-a-1-x.items.part", b"unfinished"),
        ] {
            fs::write(storage.folder.join(name), content).expect("written");
        }
        let mut found = Vec::new();
        while let Some(stored) = storage.take("a").expect("readable") {
            found.push(stored.items.clone());
            stored.delete();
        }
        assert_eq!(found, [vec![b"abc".to_vec()], vec![]]);
    }
}
