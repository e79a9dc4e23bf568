//! Writes samples as files, in the format of `docs/validate.md`. Runs in a thread of its own, which may wait for the disk.
//!
//! The folder has `recorded-00001.request.json` and `recorded-00001.response.json`; the bodies are in `bodies/`, byte by
//! byte. The files of a request are private, because bodies may be. A request's own file comes last, so that a sample is
//! complete as soon as others can see it.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    queue::{Missed, Queue},
    redaction::{self, Headers},
    Plan, Sample, LOG,
};
use crate::{shortage, telemetry};

const BODIES: &str = "bodies";
const PREFIX: &str = "recorded-";
const REQUEST_END: &str = ".request.json";
const RESPONSE_END: &str = ".response.json";

/// Writes samples until no more come, or the folder is full.
pub fn run(plan: Plan, queue: &Queue) {
    let mut folder = Folder { path: plan.folder, most: plan.count, state: State::Unopened };
    let (mut written, mut is_failing) = (0_u64, false);
    let shown = folder.path.display().to_string();
    log::info!(target: LOG, "Requests to /score and their answers are recorded in {shown} (--record), with their bodies.");
    while let Some(sample) = queue.take() {
        match folder.write(&sample) {
            Ok(true) => {
                written += 1;
                if std::mem::take(&mut is_failing) {
                    log::info!(target: LOG, "Requests are recorded in {shown} again (--record).");
                }
            }
            Ok(false) => {}
            Err(error) => {
                queue.note_missed(Missed::Failed);
                // One line until it works again; the end says how many were lost.
                if !std::mem::replace(&mut is_failing, true) {
                    let remedy = shortage::remedy(&error);
                    log::warn!(target: LOG, "Cannot record a request in {shown} (--record): {error}. {remedy}");
                }
            }
        }
        if folder.is_full() {
            queue.close();
            let most = folder.most;
            log::info!(
                target: LOG,
                "{shown} has {most} recorded requests (--record_count), so no more are recorded. Empty it to record others."
            );
            break;
        }
    }
    let missed = queue.missed().told();
    if written > 0 || !missed.is_empty() {
        let missed = if missed.is_empty() { missed } else { format!(" Not recorded: {missed}.") };
        log::info!(target: LOG, "Requests recorded in {shown} (--record): {written}.{missed}");
    }
}

/// The folder of the samples.
struct Folder {
    path: PathBuf,
    most: usize,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// It was not looked at yet, or could not be.
    Unopened,
    /// It has this many recorded samples, of which the last one has this number.
    Open { count: usize, last: u64 },
}

impl Folder {
    fn is_full(&self) -> bool {
        matches!(self.state, State::Open { count, .. } if count >= self.most)
    }

    /// Writes a sample; false if the folder is full.
    fn write(&mut self, sample: &Sample) -> io::Result<bool> {
        let (count, last) = self.open()?;
        if count >= self.most {
            return Ok(false);
        }
        let name = format!("{PREFIX}{:05}", last + 1);
        let files = files(sample, &name);
        if let Err(error) = self.write_all(&files) {
            for file in &files {
                // A file that cannot be removed does no harm: the next attempt overwrites it.
                let _ = fs::remove_file(self.path.join(&file.name));
                let _ = fs::remove_file(self.unfinished(&file.name));
            }
            // The folder may have been removed.
            self.state = State::Unopened;
            return Err(error);
        }
        self.state = State::Open { count: count + 1, last: last + 1 };
        Ok(true)
    }

    /// Makes the folder if it is not there. Returns how many samples it has, and the number of the last one.
    fn open(&mut self) -> io::Result<(usize, u64)> {
        if let State::Open { count, last } = self.state {
            return Ok((count, last));
        }
        make_private(&self.path.join(BODIES))?;
        let names = fs::read_dir(&self.path)?.collect::<io::Result<Vec<_>>>()?;
        let numbers: Vec<u64> = names.iter().filter_map(|entry| number(&entry.file_name())).collect();
        let (count, last) = (numbers.len(), numbers.into_iter().max().unwrap_or_default());
        self.state = State::Open { count, last };
        Ok((count, last))
    }

    fn write_all(&self, files: &[File]) -> io::Result<()> {
        for file in files {
            let unfinished = self.unfinished(&file.name);
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(&unfinished)?.write_all(&file.content)?;
        }
        // The request's own file is the last one.
        files.iter().try_for_each(|file| fs::rename(self.unfinished(&file.name), self.path.join(&file.name)))
    }

    /// The path of a file before it is complete. It is hidden, and in the folder for bodies, so nobody takes it for a sample.
    /// A body may have the same name as its description, in another folder.
    fn unfinished(&self, name: &str) -> PathBuf {
        self.path.join(BODIES).join(format!(".{}.part", name.replace('/', "-")))
    }
}

/// Makes a folder, and those above it, that only this user can read. One that is there stays as it is.
fn make_private(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// The number of a recorded sample, from the name of its request's file.
fn number(name: &OsStr) -> Option<u64> {
    name.to_str()?.strip_prefix(PREFIX)?.strip_suffix(REQUEST_END)?.parse().ok()
}

/// A file of a sample; its name begins at the folder of the samples.
struct File {
    name: String,
    content: Vec<u8>,
}

#[derive(Serialize)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    query: String,
    headers: Headers,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_file: Option<&'a str>,
}

#[derive(Serialize)]
struct Response<'a> {
    status: u16,
    headers: Headers,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_file: Option<&'a str>,
}

/// The files of a sample, in the order in which others may see them.
fn files(sample: &Sample, name: &str) -> Vec<File> {
    let body_of = |what: &str, end: &str| format!("{BODIES}/{name}.{what}{end}");
    let request = redaction::of_request(&sample.fields, !sample.body.is_empty());
    let response = redaction::of_reply(&sample.reply_fields);
    let body = (!sample.body.is_empty()).then(|| body_of("request", ending(&request, &sample.body)));
    let reply = sample.reply.as_ref().map(|reply| body_of("response", ending(&response, reply)));
    let mut files = Vec::new();
    let bodies = [(&body, Some(&sample.body)), (&reply, sample.reply.as_ref())];
    for (name, content) in bodies {
        if let (Some(name), Some(content)) = (name, content) {
            files.push(File { name: name.clone(), content: content.to_vec() });
        }
    }
    let response = Response { status: sample.status, headers: response, body_file: reply.as_deref() };
    files.push(File { name: format!("{name}{RESPONSE_END}"), content: json(&response) });
    let query = telemetry::redaction::query(&sample.query).into_owned();
    let request =
        Request { method: &sample.method, path: &sample.path, query, headers: request, body_file: body.as_deref() };
    files.push(File { name: format!("{name}{REQUEST_END}"), content: json(&request) });
    files
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Texts and numbers only: these can always be written.
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

/// How the name of a body's file ends. An answer whose file ends with `.json` is compared as JSON, so it must be JSON.
fn ending(headers: &Headers, body: &[u8]) -> &'static str {
    let kind = headers.get("content-type").cloned().flatten().unwrap_or_default().to_ascii_lowercase();
    let is = |part: &str| kind.contains(part);
    if is("json") && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        ".json"
    } else if is("csv") {
        ".csv"
    } else if is("image/png") {
        ".png"
    } else if is("image/jpeg") {
        ".jpg"
    } else if std::str::from_utf8(body).is_ok() {
        ".txt"
    } else {
        ".bin"
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::telemetry::record::Field;

    struct Temporary(PathBuf);

    impl Temporary {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("azmlinfsrv-{}", uuid::Uuid::new_v4().simple())))
        }

        fn names(&self) -> Vec<String> {
            let mut names = Vec::new();
            for folder in [self.0.clone(), self.0.join(BODIES)] {
                for entry in fs::read_dir(folder).expect("a folder") {
                    let entry = entry.expect("an entry");
                    if entry.path().is_file() {
                        names.push(entry.file_name().into_string().expect("text"));
                    }
                }
            }
            names.sort();
            names
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn folder(at: &Temporary, most: usize) -> Folder {
        Folder { path: at.0.join(""), most, state: State::Unopened }
    }

    fn typed(kind: &'static str) -> Vec<Field> {
        vec![(Bytes::from_static(b"content-type"), Bytes::from_static(kind.as_bytes()))]
    }

    fn sample() -> Sample {
        Sample {
            method: "POST".to_owned(),
            path: "/score".to_owned(),
            query: "a=1&sig=x".to_owned(),
            fields: typed("application/json"),
            body: Bytes::from_static(b"{\"a\":1}"),
            status: 200,
            reply_fields: typed("application/json"),
            reply: Some(Bytes::from_static(b"[1.0]")),
        }
    }

    #[test]
    fn a_sample_is_two_descriptions_and_two_bodies() {
        let at = Temporary::new();
        assert!(folder(&at, 10).write(&sample()).expect("written"));
        assert_eq!(
            at.names(),
            [
                "recorded-00001.request.json",
                "recorded-00001.request.json",
                "recorded-00001.response.json",
                "recorded-00001.response.json"
            ]
        );
        let read = |name: &str| fs::read_to_string(at.0.join(name)).expect("a file");
        assert_eq!(
            read("recorded-00001.request.json"),
            "{\n  \"method\": \"POST\",\n  \"path\": \"/score\",\n  \"query\": \"a=1&sig=REDACTED\",\n  \"headers\": {\n    \
             \"content-type\": \"application/json\"\n  },\n  \"body_file\": \"bodies/recorded-00001.request.json\"\n}\n"
        );
        assert_eq!(
            read("recorded-00001.response.json"),
            "{\n  \"status\": 200,\n  \"headers\": {\n    \"content-type\": \"application/json\"\n  },\n  \"body_file\": \
             \"bodies/recorded-00001.response.json\"\n}\n"
        );
        assert_eq!(read("bodies/recorded-00001.request.json"), "{\"a\":1}");
        assert_eq!(read("bodies/recorded-00001.response.json"), "[1.0]");
    }

    #[cfg(unix)]
    #[test]
    fn files_are_private() {
        use std::os::unix::fs::PermissionsExt as _;

        let at = Temporary::new();
        folder(&at, 10).write(&sample()).expect("written");
        let mode = |name: &str| fs::metadata(at.0.join(name)).expect("a file").permissions().mode() & 0o777;
        assert_eq!((mode(""), mode(BODIES)), (0o700, 0o700));
        for name in ["recorded-00001.request.json", "bodies/recorded-00001.response.json"] {
            assert_eq!(mode(name), 0o600, "{name}");
        }
    }

    #[test]
    fn numbers_go_on_and_the_folder_is_bounded() {
        let at = Temporary::new();
        let mut first = folder(&at, 3);
        assert!(first.write(&sample()).expect("written") && first.write(&sample()).expect("written"));
        fs::remove_file(at.0.join("recorded-00001.request.json")).expect("removed");
        fs::write(at.0.join("other.request.json"), "{}").expect("written");
        let mut second = folder(&at, 2);
        assert!(second.write(&sample()).expect("written"), "one recorded sample was left");
        assert!(second.is_full());
        assert!(!second.write(&sample()).expect("full"));
        assert!(
            at.0.join("recorded-00003.request.json").exists() && !at.0.join("recorded-00004.request.json").exists()
        );
    }

    #[test]
    fn a_failure_leaves_no_half_sample_and_the_next_attempt_starts_anew() {
        let at = Temporary::new();
        let mut folder = folder(&at, 10);
        folder.write(&sample()).expect("written");
        // A folder in the place of a file: rename fails.
        let in_the_way = at.0.join("recorded-00002.response.json");
        fs::create_dir_all(in_the_way.join("x")).expect("made");
        assert!(folder.write(&sample()).is_err());
        assert!(at.names().iter().all(|name| name.starts_with("recorded-00001")), "{:?}", at.names());
        fs::remove_dir_all(&in_the_way).expect("removed");
        assert!(folder.write(&sample()).expect("written"));
        assert!(at.0.join("recorded-00002.request.json").exists());
        fs::remove_dir_all(&at.0).expect("removed");
        assert!(folder.write(&sample()).is_err(), "the folder is gone");
        assert!(folder.write(&sample()).expect("made again"));
    }

    #[test]
    fn endings_follow_type_and_content() {
        let of = |kind: &str, body: &[u8]| {
            ending(&Headers::from([("content-type".to_owned(), Some(kind.to_owned()))]), body)
        };
        for (kind, body, end) in [
            ("application/json", &b"{}"[..], ".json"),
            ("application/problem+json; charset=utf-8", b"{}", ".json"),
            ("application/json", b"{", ".txt"),
            ("application/json", b"[NaN]", ".txt"),
            ("text/csv", b"a,b", ".csv"),
            ("image/png", b"\x89", ".png"),
            ("text/html", b"<p>", ".txt"),
            ("", b"\xff", ".bin"),
        ] {
            assert_eq!(of(kind, body), end, "{kind} {body:?}");
        }
        assert_eq!(ending(&Headers::new(), b"text"), ".txt");
        assert_eq!(number(OsStr::new("recorded-00012.request.json")), Some(12));
        assert_eq!(number(OsStr::new("recorded-x.request.json")), None);
    }
}
