//! Reads the head of a request: where it ends, what body follows, and whether it is HTTP at all
//! (RFC 9112, 2 to 6).
//!
//! Only this file decides these questions. It refuses everything that actix-http's parser would
//! refuse, and more, so that the parser never gets a head that it could read differently. Pure
//! functions; runs in the front's event loop.

#[cfg(test)]
mod tests;

use std::{mem::MaybeUninit, ops::Range};

use actix_web::http::{Method, Uri};

use super::{host::is_host, parse_error::Refusal};

/// Longest head in bytes. The parser gives up at 128 KiB.
pub const MAX_HEAD: usize = 127 * 1024;
/// Longest request line in bytes; the parser's limit for a target.
pub const MAX_REQUEST_LINE: usize = 65_535;
/// Largest number of header fields; the parser's limit.
pub const MAX_FIELDS: usize = 96;

/// The length of the body, as the head declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// This many bytes follow, possibly none.
    Known(u64),
    /// The body is in the chunked coding.
    Chunked,
}

/// A complete and valid head.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Its length in bytes as sent, with blank lines before it and the one at its end.
    pub length: usize,
    /// The body that follows.
    pub body: BodyLength,
    /// HTTP/1.1 and not HTTP/1.0.
    pub is_http_1_1: bool,
    /// Another request may follow on the connection.
    pub persists: bool,
    /// The client waits for `100 Continue` before it sends the body (`Expect: 100-continue`).
    pub awaits_continue: bool,
    /// The bytes for the parser, if they differ from those that were sent.
    pub rewritten: Option<Vec<u8>>,
    /// The target as sent, if it is not just path and query.
    pub target: Option<String>,
}

/// Reads the head at the beginning of `bytes`; `None` if its end has not come yet.
pub fn read(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
    let mut fields: [MaybeUninit<httparse::Header<'_>>; MAX_FIELDS] = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => check(&bytes[..length], &request).map(Some),
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => Ok(None),
        Ok(_) => Err(Refusal::head_too_large(bytes)),
        Err(error) => Err(Refusal::of_parser(error, bytes)),
    }
}

/// The values of header fields about the connection and the body.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    hosts: usize,
    length: Option<&'a [u8]>,
    lengths: usize,
    coding: Option<&'a [u8]>,
    codings: usize,
    wish: Option<Wish>,
    offers_upgrade: bool,
    awaits_continue: bool,
}

/// The options of `Connection` that matter here, in the order in which one outweighs the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    KeepAlive,
    Upgrade,
    Close,
}

impl<'a> Fields<'a> {
    fn of(headers: &[httparse::Header<'a>]) -> Self {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            // Compare lengths first, because this runs for every field of every request.
            match header.name.len() {
                4 if is("host") => {
                    fields.host = Some(header.value);
                    fields.hosts += 1;
                }
                6 if is("expect") => fields.awaits_continue |= mentions_continue(header.value),
                7 if is("upgrade") => fields.offers_upgrade = true,
                10 if is("connection") => fields.wish = fields.wish.max(wish(header.value)),
                14 if is("content-length") => {
                    fields.length = Some(header.value);
                    fields.lengths += 1;
                }
                17 if is("transfer-encoding") => {
                    fields.coding.get_or_insert(header.value);
                    fields.codings += 1;
                }
                _ => {}
            }
        }
        fields
    }
}

fn wish(value: &[u8]) -> Option<Wish> {
    let options = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    options
        .filter_map(|option| {
            [(&b"close"[..], Wish::Close), (b"upgrade", Wish::Upgrade), (b"keep-alive", Wish::KeepAlive)]
                .into_iter()
                .find_map(|(name, wish)| option.eq_ignore_ascii_case(name).then_some(wish))
        })
        .max()
}

fn mentions_continue(value: &[u8]) -> bool {
    const CONTINUE: &[u8] = b"100-continue";
    value.windows(CONTINUE.len()).any(|part| part.eq_ignore_ascii_case(CONTINUE))
}

/// Checks a head that httparse has accepted.
fn check(bytes: &[u8], request: &httparse::Request<'_, '_>) -> Result<Head, Refusal> {
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refusal::bad("the request line is malformed."));
    };
    if has_bare_line_feed(bytes) {
        return Err(Refusal::bad("a line ends in LF without CR."));
    }
    if method.len() + target.len() + b"  HTTP/1.1".len() > MAX_REQUEST_LINE {
        return Err(Refusal::request_line_too_long());
    }
    let is_http_1_1 = minor == 1;
    let fields = Fields::of(request.headers);
    let body = body_length(&fields, is_http_1_1)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::bad("the method is malformed."))?;
    check_hosts(&fields, is_http_1_1)?;
    let authority = check_target(target, &method)?;
    let persists = match fields.wish {
        None => is_http_1_1,
        Some(wish) => wish == Wish::KeepAlive,
    };
    let lacks_length = !is_http_1_1 && method == Method::POST && fields.lengths == 0;
    let start = bytes.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(0);
    let rewritten = match authority {
        None if start == 0 && !lacks_length => None,
        _ => Some(rewrite(bytes, start, authority.map(|authority| (authority, fields.host)), lacks_length)),
    };
    Ok(Head {
        length: bytes.len(),
        body,
        is_http_1_1,
        // What follows CONNECT or an offered upgrade may be another protocol (RFC 9110, sections
        // 7.8 and 9.3.6).
        persists: persists && !fields.offers_upgrade && method != Method::CONNECT,
        awaits_continue: is_http_1_1 && fields.awaits_continue,
        rewritten,
        target: (authority.is_some() || target.contains('#')).then(|| target.to_owned()),
    })
}

/// True if a line ends without CR. RFC 9112 section 2.2 allows to accept such lines. But a proxy in
/// front may not accept them, and then it sees other lines than this server does.
fn has_bare_line_feed(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| at.checked_sub(1).is_none_or(|before| bytes[before] != b'\r'))
}

/// The length of the body by RFC 9112 section 6.3. Refuses faulty lengths that the section allows a
/// server to repair.
fn body_length(fields: &Fields<'_>, is_http_1_1: bool) -> Result<BodyLength, Refusal> {
    if let Some(coding) = fields.coding {
        if !is_http_1_1 {
            return Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding."));
        }
        if let Some(unknown) = unknown_coding(coding) {
            return Err(Refusal::unknown_coding(unknown));
        }
        if fields.lengths > 0 {
            return Err(Refusal::bad("Content-Length and Transfer-Encoding exclude each other."));
        }
        if fields.codings > 1 || !coding.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::bad("Transfer-Encoding must be chunked, once."));
        }
        return Ok(BodyLength::Chunked);
    }
    let Some(length) = fields.length else { return Ok(BodyLength::Known(0)) };
    if fields.lengths > 1 {
        return Err(Refusal::bad("there is more than one Content-Length."));
    }
    let length = length.trim_ascii();
    let digits = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = digits.and_then(|digits| digits.parse().ok());
    length.map(BodyLength::Known).ok_or_else(|| Refusal::bad("Content-Length is not a number."))
}

fn unknown_coding(codings: &[u8]) -> Option<&[u8]> {
    let known = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked") || coding.eq_ignore_ascii_case(b"identity");
    codings.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).find(|coding| !known(coding))
}

/// Checks the Host fields by RFC 9112 section 3.2.
fn check_hosts(fields: &Fields<'_>, is_http_1_1: bool) -> Result<(), Refusal> {
    match (fields.hosts, fields.host) {
        (0, _) if is_http_1_1 => Err(Refusal::bad("HTTP/1.1 needs a Host header.")),
        (0, _) | (1, Some(b"")) => Ok(()),
        (1, Some(host)) if is_host(host) => Ok(()),
        (1, _) => Err(Refusal::bad("the Host header is not a host name or address with an optional port.")),
        _ => Err(Refusal::bad("there is more than one Host header.")),
    }
}

/// Checks the target as the parser will. Returns the authority of one in absolute form (RFC 9112
/// section 3.2.2).
fn check_target<'a>(target: &'a str, method: &Method) -> Result<Option<&'a str>, Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%?&=+,:;@!$'()*".contains(&byte);
    if target.starts_with('/') && target.bytes().all(plain) {
        return Ok(None);
    }
    let malformed = || Refusal::bad("the target is malformed.");
    Uri::try_from(target).map_err(|_| malformed())?;
    if target.starts_with('/') || *method == Method::CONNECT {
        return Ok(None);
    }
    let Some((_, rest)) = target.split_once("://") else { return Ok(None) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if is_host(authority.as_bytes()) {
        Ok(Some(authority))
    } else {
        Err(malformed())
    }
}

/// The head for the parser: without blank lines before it, with the target's authority as its Host
/// (RFC 9112 section 3.2.2), and with a length where the parser insists on one. An HTTP/1.0 POST
/// without a length has no body (RFC 9112 section 6.3); proxies send it when their client's POST
/// has none.
fn rewrite(bytes: &[u8], start: usize, host: Option<(&str, Option<&[u8]>)>, lacks_length: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 64);
    let mut rest = start;
    if let Some((authority, sent)) = host {
        let line_end = bytes[start..].iter().position(|&byte| byte == b'\n').map_or(start, |at| start + at + 1);
        let (keep, skip, before, after) = match sent.map(|value| range_in(bytes, value)) {
            Some(value) => (value.start, value.end, "", ""),
            None => (line_end, line_end, "Host: ", "\r\n"),
        };
        out.extend_from_slice(&bytes[start..keep]);
        for part in [before, authority, after] {
            out.extend_from_slice(part.as_bytes());
        }
        rest = skip;
    }
    let end = bytes.len() - b"\r\n".len();
    out.extend_from_slice(&bytes[rest..end]);
    out.extend_from_slice(if lacks_length { b"Content-Length: 0\r\n\r\n" } else { b"\r\n" });
    out
}

/// The range of `part` in `whole`, from which it was borrowed.
fn range_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}
