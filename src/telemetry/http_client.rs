//! Posting to a receiver: a blocking HTTP client with the system's certificates, and proxies from the environment.
//!
//! Used by the exporter's thread only. No log line and no error text has a header or the query of a URL, because both may
//! hold secrets.

use std::{sync::Arc, time::Duration};

use ureq::{
    tls::{parse_pem, Certificate, ClientCert, PemItem, RootCerts, TlsConfig, TlsProvider},
    Agent,
};

use super::answer::Answer;

/// How long a connection may take. A whole request has the limit that the caller names.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read. A longer body counts as broken off.
const MAX_ANSWER: u64 = 1 << 20;

/// Files in PEM form for TLS. Without them the system's certificates count.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Certificates that a receiver's certificate must lead to.
    pub authorities: Option<String>,
    /// The server's own certificate and key, for receivers that ask for one.
    pub identity: Option<(String, String)>,
}

/// Posts to one receiver.
pub struct Client {
    agent: Agent,
}

impl Client {
    /// Reads the files. The error names the file that cannot be used.
    pub fn new(files: &TlsFiles) -> Result<Self, String> {
        let roots = match &files.authorities {
            None => RootCerts::PlatformVerifier,
            Some(path) => RootCerts::Specific(Arc::new(certificates(path)?)),
        };
        let identity =
            files.identity.as_ref().map(|(certificate, key)| client_certificate(certificate, key)).transpose()?;
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(roots)
            .client_cert(identity)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("azmlinfsrv/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { agent })
    }

    /// Sends a body and waits for the answer, for at most `timeout`. The error says in words what went wrong.
    pub fn post(
        &self,
        url: &str,
        headers: &[(String, String)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<Answer, String> {
        let mut request = self.agent.post(url).config().timeout_global(Some(timeout)).build();
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = request.send(body).map_err(|error| words(&error))?;
        let field = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (retry_after, location) = (field("retry-after"), field("location"));
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().ok();
        Ok(Answer { status, retry_after, location, body })
    }
}

/// An error without the parts of it that could name secrets.
fn words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "it did not answer in time".to_owned(),
        ureq::Error::HostNotFound => "its host name is unknown".to_owned(),
        ureq::Error::ConnectionFailed => "it cannot be reached".to_owned(),
        ureq::Error::Io(error) => format!("the connection failed ({})", error.kind()),
        ureq::Error::Protocol(_) => "it does not answer in HTTP".to_owned(),
        ureq::Error::BadUri(_) => "its URL cannot be used".to_owned(),
        other => other.to_string(),
    }
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))
}

fn certificates(path: &str) -> Result<Vec<Certificate<'static>>, String> {
    let pem = read(path)?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        Err(format!("{path} has no certificate in PEM form"))
    } else {
        Ok(found)
    }
}

fn client_certificate(certificate: &str, key: &str) -> Result<ClientCert, String> {
    let chain = certificates(certificate)?;
    let pem = read(key)?;
    let key = ureq::tls::PrivateKey::from_pem(&pem).map_err(|_| format!("{key} has no private key in PEM form"))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let missing = TlsFiles { authorities: Some("/nowhere/ca.pem".to_owned()), identity: None };
        let problem = Client::new(&missing).err().expect("an error");
        assert!(problem.starts_with("cannot read /nowhere/ca.pem"), "{problem}");
        let empty = std::env::temp_dir().join(format!("azmlinfsrv-no-pem-{}", std::process::id()));
        std::fs::write(&empty, "no certificate").expect("a file");
        let path = empty.to_string_lossy().into_owned();
        let files = TlsFiles { authorities: Some(path.clone()), identity: None };
        assert_eq!(Client::new(&files).err(), Some(format!("{path} has no certificate in PEM form")));
        std::fs::remove_file(empty).expect("removed");
    }
}
