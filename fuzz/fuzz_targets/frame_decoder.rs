//! Fuzz target: the frame codec accepts any bytes, in pieces of any size, without a panic, and does
//! not trust declared lengths.
//!
//! It checks three rules. Bytes that are not a frame cause an error and never a panic. The read
//! buffer never grows much beyond the bytes that have arrived. A message that one end encodes is
//! decoded to the same message, wherever the bytes are cut. libFuzzer runs it; see `Cargo.toml` in
//! the folder above.

#![no_main]

use std::collections::BTreeMap;

use _core::ipc::frame::{
    decode_id, encode_bare, encode_with_id, BodyAt, Decoder, Field, Frame, Hello, Inference, Job, Kind, Origin, Place,
    ReplyHead, MAX_HEAD_LEN,
};
use _core::telemetry::trace_context::Span;
use arbitrary::Arbitrary;
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

/// Limit for the buffer beyond the bytes that have arrived: one reservation, and the extra memory
/// of a buffer that grows by doubling.
const SPARE: usize = 4 << 20;
/// The body limit of the decoders here. Some lengths that the fuzzer writes are above it, others
/// below.
const MAX_BODY_LEN: u64 = 64 << 20;

#[derive(Debug, Arbitrary)]
enum Input {
    /// Any bytes, as from another program.
    Stray { bytes: Vec<u8>, cuts: Vec<u16> },
    /// Valid frames, cut at any positions.
    Written { messages: Vec<Message>, cuts: Vec<u16> },
}

// The sizes may differ, because an input has a few messages and lives for one call.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Arbitrary)]
enum Message {
    Hello {
        protocol: u16,
        worker: u32,
        pid: u32,
        shares_claims: bool,
        raw: bool,
        wants_request: bool,
        follows_traces: bool,
        shares_bodies: bool,
        capacity: u16,
        batch: u16,
        concurrent: bool,
        cancels: bool,
        model: String,
        swagger: BTreeMap<String, String>,
    },
    Job {
        texts: [String; 3],
        is_https: Option<bool>,
        parts: [Vec<u8>; 3],
        ids: [Vec<u8>; 3],
        span: Option<([u8; 16], [u8; 8], bool)>,
        id: u64,
        http_minor: u8,
        inference: Option<[Vec<u8>; 2]>,
        fields: Fields,
        short: bool,
        body: Vec<u8>,
        shared: Option<(u64, u64)>,
    },
    Reply {
        id: u64,
        status: u16,
        origin: u8,
        times: (Option<f64>, f64),
        parts: [Vec<u8>; 2],
        fields: Fields,
        body: Vec<u8>,
    },
    WithId {
        kind: u8,
        id: u64,
        body: Vec<u8>,
    },
    Bare {
        goodbye: bool,
    },
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A message that is encoded, and must be decoded to an equal one.
#[derive(Debug, PartialEq)]
enum Meaning {
    Hello(Hello),
    Job(Box<Job>, Bytes, Option<Place>),
    Reply(ReplyHead, Bytes),
    WithId(Kind, u64, Bytes),
    Bare(Kind),
}

fuzz_target!(|input: Input| match input {
    Input::Stray { bytes, cuts } => {
        receive(&bytes, &cuts, |frame| read_everything(&frame));
    }
    Input::Written { messages, cuts } => {
        let mut wire = Vec::new();
        let expected: Vec<Meaning> = messages.into_iter().map(|message| message.write(&mut wire)).collect();
        let mut seen = Vec::new();
        let whole = receive(&wire, &cuts, |frame| seen.push(read(&frame)));
        assert!(whole, "an encoded frame was refused");
        assert_eq!(seen, expected);
    }
});

/// Gives the decoder one piece after the other. Returns true if it has accepted everything and no
/// bytes are left.
fn receive(wire: &[u8], cuts: &[u16], mut on_frame: impl FnMut(Frame)) -> bool {
    let decoder = Decoder { max_body_len: MAX_BODY_LEN, trusted: false };
    let mut buf = BytesMut::new();
    let mut rest = wire;
    let mut cuts = cuts.iter();
    while !rest.is_empty() {
        let len = cuts.next().map_or(rest.len(), |&cut| usize::from(cut).clamp(1, rest.len()));
        let (portion, later) = rest.split_at(len);
        rest = later;
        buf.extend_from_slice(portion);
        loop {
            match decoder.decode(&mut buf) {
                Ok(Some(frame)) => on_frame(frame),
                Ok(None) => break,
                Err(_) => return false,
            }
        }
        assert!(buf.capacity() <= 4 * wire.len() + SPARE, "{} reserved for {} bytes", buf.capacity(), wire.len());
    }
    buf.is_empty()
}

/// Calls all readers, whatever the kind of the frame is, because a peer may send any head with any
/// kind.
fn read_everything(frame: &Frame) {
    assert!(frame.head.len() <= MAX_HEAD_LEN && frame.body.len() as u64 <= MAX_BODY_LEN);
    let _ = Hello::decode(frame);
    if let Ok(job) = Job::decode(frame) {
        // Each message has exactly one encoding, so encoding an accepted head again must give the
        // same bytes. A head that says "the request was left out" is not compared, because its
        // other fields are not encoded again.
        if job.whole_request {
            let again = job.encode_head(BodyAt::Frame(frame.body.len()));
            assert_eq!(&again[again.len() - frame.head.len()..], &frame.head[..]);
        }
    }
    if let Ok(reply) = ReplyHead::decode(frame) {
        // Every NaN means "no time", and there are many NaNs. So the decoded values are compared,
        // and not the bytes.
        let again = reply.encode(Kind::Reply, frame.body.len()).expect("it was within the limits");
        assert_eq!(again.len() - _core::ipc::frame::PREFIX_LEN, frame.head.len());
    }
    if let Ok(id) = decode_id(frame) {
        assert_eq!(frame.head[..], id.to_le_bytes());
    }
}

fn read(frame: &Frame) -> Meaning {
    let body = frame.body.clone();
    match frame.kind {
        Kind::Hello => Meaning::Hello(Hello::decode(frame).expect("a hello")),
        Kind::Job => Meaning::Job(Box::new(Job::decode(frame).expect("a job")), body, None),
        Kind::SharedJob => {
            let mut frame = frame.clone();
            let place = Place::split_from(&mut frame.head).expect("a place");
            Meaning::Job(Box::new(Job::decode(&frame).expect("a job")), body, Some(place))
        }
        Kind::Reply | Kind::StreamStart => Meaning::Reply(ReplyHead::decode(frame).expect("a reply"), body),
        Kind::StreamChunk | Kind::StreamEnd | Kind::Cancel | Kind::Hold | Kind::Resume => {
            Meaning::WithId(frame.kind, decode_id(frame).expect("an id"), body)
        }
        Kind::Retire | Kind::Goodbye | Kind::Skipped | Kind::CallsAgain => Meaning::Bare(frame.kind),
    }
}

impl Message {
    fn write(self, wire: &mut Vec<u8>) -> Meaning {
        match self {
            Self::Hello {
                protocol,
                worker,
                pid,
                shares_claims,
                raw,
                wants_request,
                follows_traces,
                shares_bodies,
                capacity,
                batch,
                concurrent,
                cancels,
                model,
                swagger,
            } => {
                let hello = Hello {
                    protocol,
                    worker,
                    pid,
                    shares_claims,
                    raw,
                    wants_request,
                    follows_traces,
                    shares_bodies,
                    capacity,
                    batch,
                    concurrent,
                    cancels,
                    model,
                    swagger,
                };
                wire.extend_from_slice(&hello.encode().expect("only text inside"));
                Meaning::Hello(hello)
            }
            Self::Job { texts, is_https, parts, ids, span, id, http_minor, inference, fields, short, body, shared } => {
                let [method, peer, client] = texts;
                let [request_id, client_request_id, tracestate] = ids.map(Bytes::from);
                let span = span.map(|(trace_id, span_id, is_sampled)| Span { trace_id, span_id, is_sampled });
                let [target, query, content_type] = parts.map(Bytes::from);
                let inference = inference.map(|parts| {
                    let [path, json_length] = parts.map(Bytes::from);
                    Inference { path, json_length }
                });
                let fields = owned(fields);
                let whole_request = !short;
                let mut job = Job {
                    id,
                    method,
                    target,
                    query,
                    content_type,
                    http_minor,
                    whole_request,
                    deprecated_id: id % 2 == 0,
                    peer,
                    client,
                    is_https,
                    request_id,
                    client_request_id,
                    span,
                    tracestate,
                    inference,
                    fields,
                };
                let place = shared.map(|(offset, length)| Place { offset, length });
                let body = if place.is_some() { Vec::new() } else { body };
                let at = place.map_or(BodyAt::Frame(body.len()), BodyAt::Shared);
                let head = if short { job.encode_short_head(at) } else { job.encode_head(at) };
                if short {
                    job = Job {
                        target: Bytes::new(),
                        peer: String::new(),
                        client: String::new(),
                        is_https: None,
                        fields: vec![],
                        ..job
                    };
                }
                append(wire, &head, &body);
                Meaning::Job(Box::new(job), body.into(), place)
            }
            Self::Reply { id, status, origin, times: (run_ms, busy_ms), parts, fields, body } => {
                let [server_version, error_location] = parts.map(Bytes::from);
                let origin = match origin % 5 {
                    0 => Origin::Result,
                    1 => Origin::Response,
                    2 => Origin::ScriptError,
                    3 => Origin::Timeout,
                    _ => Origin::ServerError,
                };
                let run_ms = run_ms.filter(|ms| !ms.is_nan());
                // NaN does not equal itself, so it is left out of the comparison.
                let busy_ms = if busy_ms.is_nan() { 0.0 } else { busy_ms };
                let fields = owned(fields);
                let head = ReplyHead {
                    id,
                    status,
                    origin,
                    is_logged: status % 2 == 0,
                    run_ms,
                    busy_ms,
                    server_version,
                    error_location,
                    fields,
                };
                append(wire, &head.encode(Kind::Reply, body.len()).expect("small"), &body);
                Meaning::Reply(head, body.into())
            }
            Self::WithId { kind, id, body } => {
                let kind = [Kind::StreamChunk, Kind::StreamEnd, Kind::Cancel][usize::from(kind % 3)];
                append(wire, &encode_with_id(kind, id, body.len()), &body);
                Meaning::WithId(kind, id, body.into())
            }
            Self::Bare { goodbye } => {
                let kind = if goodbye { Kind::Goodbye } else { Kind::Retire };
                wire.extend_from_slice(&encode_bare(kind));
                Meaning::Bare(kind)
            }
        }
    }
}

fn append(wire: &mut Vec<u8>, head: &[u8], body: &[u8]) {
    wire.extend_from_slice(head);
    wire.extend_from_slice(body);
}

fn owned(fields: Fields) -> Vec<Field> {
    fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}
