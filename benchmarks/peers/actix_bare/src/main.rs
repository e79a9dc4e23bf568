//! The ceiling in the benchmarks: actix-web, the library under this project's front, without a
//! script behind it.
//!
//! `actix-bare PORT REPLY [THREADS]` reads each request to `/score` whole and answers with the
//! contents of the file REPLY. Without THREADS there are as many as actix-web starts by default:
//! one for each core. If `SPENT` stands in REPLY, it works for 5 ms by the clock before each
//! answer, and says in its place how many they were.

use std::{
    env, fs, io,
    time::{Duration, Instant},
};

use actix_web::{web, App, HttpResponse, HttpServer};

/// Larger than any body of the benchmarks.
const LARGEST_BODY: usize = 256 << 20;
const WORK: Duration = Duration::from_millis(5);

#[actix_web::main]
async fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "usage: actix-bare PORT REPLY [THREADS]");
    let number = |text: &String| text.parse::<usize>().map_err(|_| wrong());
    let (port, file) = match arguments.as_slice() {
        [port, file, ..] => (port.parse::<u16>().map_err(|_| wrong())?, file),
        _ => return Err(wrong()),
    };
    let reply = web::Bytes::from(fs::read(file)?);
    let works = reply.windows(5).any(|word| word == b"SPENT");
    let mut server = HttpServer::new(move || {
        let reply = reply.clone();
        let score = move |_body: web::Bytes| {
            let reply = reply.clone();
            async move {
                let reply = if works { spend(&reply) } else { reply };
                HttpResponse::Ok().content_type("application/json").body(reply)
            }
        };
        App::new()
            .app_data(web::PayloadConfig::new(LARGEST_BODY))
            .route("/", web::get().to(|| async { "Healthy" }))
            .route("/score", web::post().to(score))
    });
    if let Some(threads) = arguments.get(2) {
        server = server.workers(number(threads)?);
    }
    server.bind(("127.0.0.1", port))?.run().await
}

fn spend(reply: &[u8]) -> web::Bytes {
    let started = Instant::now();
    while started.elapsed() < WORK {}
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    String::from_utf8_lossy(reply).replace("SPENT", &milliseconds.to_string()).into()
}
