//! What the codec costs the front and a worker for one request: `cargo bench --no-default-features
//! --bench frames`.

use std::hint::black_box;

use _core::ipc::frame::{BodyAt, Decoder, Frame, Job, Kind, ReplyHead};
use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput};

const BODY: &[u8] = br#"{"data": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}"#;
const LARGE: usize = 1 << 20;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    encoding(&mut criterion);
    decoding(&mut criterion);
    criterion.final_summary();
}

fn job() -> Job {
    let field = |name: &'static str, value: &'static str| (Bytes::from_static(name.as_bytes()), Bytes::from(value));
    Job {
        id: 4711,
        method: "POST".to_owned(),
        target: Bytes::from_static(b"/score?verbose=1"),
        query: Bytes::from_static(b"verbose=1"),
        content_type: Bytes::from_static(b"application/json"),
        http_minor: 1,
        whole_request: true,
        deprecated_id: false,
        peer: "127.0.0.1:40312".to_owned(),
        client: String::new(),
        is_https: None,
        request_id: Bytes::from_static(b"1f0a64f6-8f7f-4d2e-9e2b-2f4cf2d6a111"),
        fields: vec![
            field("host", "localhost:5001"),
            field("accept", "*/*"),
            field("content-type", "application/json"),
            field("authorization", "Bearer abcdefghijklmnopqrstuvwxyz0123456789"),
        ],
        ..Job::default()
    }
}

fn reply() -> ReplyHead {
    let fields = vec![(Bytes::from_static(b"content-type"), Bytes::from_static(b"application/json"))];
    ReplyHead { id: 4711, status: 200, run_ms: Some(0.02), busy_ms: 0.03, fields, ..ReplyHead::default() }
}

fn encoding(criterion: &mut Criterion) {
    let (job, reply) = (job(), reply());
    let mut group = criterion.benchmark_group("encode");
    group.bench_function("job without the request", |bench| {
        bench.iter(|| black_box(&job).encode_short_head(BodyAt::Frame(BODY.len())))
    });
    group.bench_function("job with the request", |bench| {
        bench.iter(|| black_box(&job).encode_head(BodyAt::Frame(BODY.len())))
    });
    group.bench_function("reply", |bench| bench.iter(|| black_box(&reply).encode(Kind::Reply, BODY.len())));
    group.finish();
}

#[expect(clippy::expect_used, reason = "the reply is far below the limits of a frame; if not, say so at once")]
fn decoding(criterion: &mut Criterion) {
    let small = wire(&job().encode_short_head(BodyAt::Frame(BODY.len())), BODY);
    let whole = wire(&job().encode_head(BodyAt::Frame(BODY.len())), BODY);
    let answer = wire(&reply().encode(Kind::Reply, BODY.len()).expect("small"), BODY);
    let large = wire(&job().encode_short_head(BodyAt::Frame(LARGE)), &vec![0; LARGE]);

    let mut group = criterion.benchmark_group("decode");
    for (name, bytes) in [("job without the request", &small), ("job with the request", &whole), ("1 MiB job", &large)]
    {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bench| {
            bench.iter_batched(|| bytes.clone(), |buffer| Job::decode(&next(buffer)), BatchSize::SmallInput);
        });
    }
    group.throughput(Throughput::Bytes(answer.len() as u64));
    group.bench_function("reply", |bench| {
        bench.iter_batched(|| answer.clone(), |buffer| ReplyHead::decode(&next(buffer)), BatchSize::SmallInput);
    });
    group.finish();
}

fn wire(head: &[u8], body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::from(head);
    bytes.extend_from_slice(body);
    bytes
}

#[expect(clippy::expect_used, reason = "the bytes come from the codec itself; if they are not a frame, say so at once")]
fn next(mut buffer: BytesMut) -> Frame {
    let decoder = Decoder { max_body_len: u64::MAX, trusted: false };
    decoder.decode(&mut buffer).expect("valid").expect("complete")
}
