//! Round trips, cuts at every byte, refused lengths.

use bytes::{BufMut as _, BytesMut};

use super::{
    codec::{encode, MAX_RESERVE},
    *,
};
use crate::telemetry::trace_context::Span;

const DECODER: Decoder = Decoder { max_body_len: 1 << 20, trusted: false };

fn job() -> Job {
    Job {
        id: 7,
        method: "POST".into(),
        target: Bytes::from_static(b"/score?a=1"),
        query: Bytes::from_static(b"a=1"),
        content_type: Bytes::from_static(b"text/plain"),
        http_minor: 1,
        whole_request: true,
        deprecated_id: true,
        peer: "127.0.0.1:9".into(),
        client: "192.0.2.1:0".into(),
        is_https: Some(true),
        request_id: Bytes::from_static(b"r"),
        client_request_id: Bytes::from_static(b"c"),
        span: Some(Span { trace_id: [1; 16], span_id: [2; 8], is_sampled: true }),
        tracestate: Bytes::from_static(b"a=b"),
        inference: Some(Inference {
            path: Bytes::from_static(b"/v2/models/m/infer"),
            json_length: Bytes::from_static(b"42"),
        }),
        fields: vec![(Bytes::from_static(b"x-latin"), Bytes::from_static(b"\xe9"))],
    }
}

fn reply() -> ReplyHead {
    ReplyHead {
        id: 7,
        status: 500,
        origin: Origin::ScriptError,
        is_logged: true,
        run_ms: None,
        busy_ms: 1.5,
        server_version: Bytes::from_static(b"azmlinfsrv/2"),
        error_location: Bytes::from_static(b"score.py:1 E"),
        fields: vec![(Bytes::from_static(b"content-type"), Bytes::from_static(b"application/json"))],
    }
}

/// A greeting, for tests of other modules as well.
pub(crate) fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        worker: 3,
        pid: 12,
        shares_claims: true,
        raw: true,
        wants_request: true,
        follows_traces: true,
        shares_bodies: true,
        capacity: 1,
        batch: 1,
        concurrent: false,
        cancels: false,
        model: "{}".to_owned(),
        swagger: [("3".to_owned(), "{}".to_owned())].into(),
    }
}

fn wire(parts: &[&[u8]]) -> BytesMut {
    BytesMut::from(&parts.concat()[..])
}

fn decode_one(mut buf: BytesMut) -> Frame {
    let frame = DECODER.decode(&mut buf).expect("valid").expect("whole");
    assert!(buf.is_empty());
    frame
}

#[test]
fn job_survives_the_round_trip() {
    let body = b"{\"data\": 1}";
    let frame = decode_one(wire(&[&job().encode_head(BodyAt::Frame(body.len())), body]));
    assert_eq!(frame.kind, Kind::Job);
    assert_eq!(Job::decode(&frame), Ok(job()));
    assert_eq!(&frame.body[..], body);
}

#[test]
fn a_job_tells_where_its_body_is_shared() {
    let place = Place { offset: 3 << 40, length: 1 << 33 };
    for encoded in [job().encode_head(BodyAt::Shared(place)), job().encode_short_head(BodyAt::Shared(place))] {
        let mut frame = decode_one(wire(&[&encoded]));
        assert_eq!(frame.kind, Kind::SharedJob);
        assert!(frame.body.is_empty());
        assert_eq!(Place::split_from(&mut frame.head), Ok(place));
        assert_eq!(Job::decode(&frame).map(|job| job.id), Ok(job().id));
        assert_eq!(Place::split_from(&mut frame.head.slice(..15)), Err(FrameError::Malformed("place")));
    }
}

#[test]
fn reply_survives_the_round_trip_with_and_without_a_run_time() {
    for run_ms in [None, Some(0.125)] {
        let head = ReplyHead { run_ms, ..reply() };
        let frame = decode_one(wire(&[&head.encode(Kind::StreamStart, 0).expect("small")]));
        assert_eq!(frame.kind, Kind::StreamStart);
        assert_eq!(ReplyHead::decode(&frame), Ok(head));
    }
}

#[test]
fn hello_survives_the_round_trip() {
    let frame = decode_one(hello().encode().expect("encodes"));
    assert_eq!(Hello::decode(&frame), Ok(hello()));
}

#[test]
fn every_cut_asks_for_more_and_loses_nothing() {
    let body = b"0123456789";
    let whole = wire(&[
        &job().encode_head(BodyAt::Frame(body.len())),
        body,
        &encode_bare(Kind::Retire),
        &reply().encode(Kind::Reply, 3).expect("small"),
        b"abc",
        &encode_with_id(Kind::StreamEnd, 9, 0),
    ]);
    let mut expected = Vec::new();
    let mut all = whole.clone();
    while let Some(frame) = DECODER.decode(&mut all).expect("valid") {
        expected.push(frame);
    }
    assert_eq!(expected.len(), 4);
    for cut in 0..=whole.len() {
        let mut buf = BytesMut::from(&whole[..cut]);
        let mut seen = Vec::new();
        while let Some(frame) = DECODER.decode(&mut buf).expect("valid prefix") {
            seen.push(frame);
        }
        buf.extend_from_slice(&whole[cut..]);
        while let Some(frame) = DECODER.decode(&mut buf).expect("valid rest") {
            seen.push(frame);
        }
        assert_eq!(seen, expected, "cut at {cut}");
    }
}

#[test]
fn heads_cut_short_or_with_bytes_left_over_are_refused() {
    let encoded = job().encode_head(BodyAt::Frame(0));
    let head = encoded.slice(PREFIX_LEN..);
    for len in 0..head.len() {
        let frame = Frame { kind: Kind::Job, head: head.slice(..len), body: Bytes::new() };
        assert_eq!(Job::decode(&frame), Err(FrameError::Malformed("job")), "length {len}");
    }
    let longer = Bytes::from([&head[..], b"x"].concat());
    let frame = Frame { kind: Kind::Job, head: longer, body: Bytes::new() };
    assert_eq!(Job::decode(&frame), Err(FrameError::Malformed("job")));
}

#[test]
fn declared_lengths_are_limited_and_allocate_nothing() {
    let mut buf = BytesMut::new();
    buf.put_u8(Kind::Job as u8);
    buf.put_u32_le(u32::MAX);
    buf.put_u64_le(0);
    assert!(matches!(DECODER.decode(&mut buf.clone()), Err(FrameError::TooLong { what: "head", .. })));
    let mut buf = BytesMut::new();
    buf.put_u8(Kind::Job as u8);
    buf.put_u32_le(0);
    buf.put_u64_le(u64::MAX);
    assert!(matches!(DECODER.decode(&mut buf.clone()), Err(FrameError::TooLong { what: "body", .. })));
    let generous = Decoder { max_body_len: 1 << 40, trusted: false };
    let mut buf = encode(Kind::StreamChunk, 1 << 39, |out| out.put_u64_le(1));
    assert_eq!(generous.decode(&mut buf), Ok(None));
    assert!(buf.capacity() <= 4 * MAX_RESERVE, "reserved {} for bytes that never came", buf.capacity());
}

#[test]
fn unknown_kinds_are_refused() {
    let mut buf = wire(&[&[99], &[0; 12]]);
    assert_eq!(DECODER.decode(&mut buf), Err(FrameError::UnknownKind(99)));
}

#[test]
fn frames_between_threads_are_those_of_a_socket() {
    let encoded = hello().encode().expect("encodes").freeze();
    let frame = Frame::from_parts(encoded.clone(), Bytes::new()).expect("a frame");
    assert_eq!(frame, decode_one(encoded.into()));
    let body = Bytes::from_static(b"[1]");
    let head = job().encode_head(BodyAt::Frame(body.len()));
    let frame = Frame::from_parts(head.clone(), body.clone()).expect("a frame");
    assert_eq!(frame, decode_one(wire(&[&head, &body])));
    for cut in 0..head.len() {
        assert!(Frame::from_parts(head.slice(..cut), body.clone()).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_large_job_is_split_from_its_body_before_that_is_complete() {
    let whole = wire(&[&job().encode_head(BodyAt::Frame(4)), b"body"]);
    let head_ends = whole.len() - 4;
    for cut in 0..=whole.len() {
        let mut buf = BytesMut::from(&whole[..cut]);
        let large = DECODER.decode_large_job(&mut buf, 4).expect("valid");
        assert_eq!(large.is_some(), (head_ends..whole.len()).contains(&cut), "cut at {cut}");
        let Some((head, body_len)) = large else {
            assert_eq!(buf.len(), cut);
            continue;
        };
        assert_eq!(Job::decode(&Frame { kind: Kind::Job, head, body: Bytes::new() }), Ok(job()));
        assert_eq!((body_len, &buf[..]), (4, &whole[head_ends..cut]));
    }
    assert_eq!(DECODER.decode_large_job(&mut BytesMut::from(&whole[..head_ends]), 5), Ok(None));
}

#[test]
fn a_reply_that_the_front_would_not_accept_is_not_made() {
    let with_fields = |fields: Vec<Field>| ReplyHead { fields, ..reply() }.encode(Kind::Reply, 0);
    let field = |length: usize| (Bytes::from_static(b"x"), Bytes::from(vec![b'a'; length]));
    let rest = with_fields(vec![field(0)]).expect("small").len() - PREFIX_LEN;
    let largest = with_fields(vec![field(MAX_HEAD_LEN - rest)]).expect("as large as may be");
    assert_eq!(decode_one(wire(&[&largest])).head.len(), MAX_HEAD_LEN);
    let limit = MAX_HEAD_LEN as u64;
    assert_eq!(
        with_fields(vec![field(MAX_HEAD_LEN - rest + 1)]),
        Err(FrameError::TooLong { what: "head", len: limit + 1, limit })
    );
    let body = reply().encode(Kind::Reply, 1 << 32);
    assert_eq!(body, Err(FrameError::TooLong { what: "body", len: 1 << 32, limit: MAX_BODY_LEN }));
}

#[test]
fn no_field_of_many_is_lost() {
    let fields = vec![(Bytes::from_static(b"a"), Bytes::new()); 100_000];
    let head = ReplyHead { fields, ..reply() };
    let frame = decode_one(wire(&[&head.encode(Kind::StreamStart, 0).expect("small")]));
    assert_eq!(ReplyHead::decode(&frame), Ok(head));
}
