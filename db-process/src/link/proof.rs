//! The first step of a connection: both sides of the handshake of [`process::handshake`], over HTTP.

use std::sync::LazyLock;

use native_tls::TlsConnector;
use process::certifies;
use process::handshake::{CHALLENGE_PATH, Credentials, Hello, NotProven};
use reqwest::tls::TlsInfo;
use reqwest::{Client, ClientBuilder, StatusCode, redirect};
use url::Url;

use super::lost::{Lost, other_port, unreachable, what_is_wrong};

/// One for all connections, as it takes a while to make. It keeps none of them open, asks no proxy, and
/// follows no server elsewhere.
static CLIENT: LazyLock<reqwest::Result<Client>> = LazyLock::new(|| builder().build());

fn builder() -> ClientBuilder {
    Client::builder().no_proxy().redirect(redirect::Policy::none()).pool_max_idle_per_host(0)
}

/// Lets the server prove that it knows the secret. Returns the headers with which this process proves that it
/// does: they open one WebSocket, within a few seconds. The caller has a deadline.
///
/// # Errors
/// If the server cannot be reached, or has not proven itself.
pub(super) async fn prove(
    url: &Url,
    credentials: &Credentials,
    tls: Option<TlsConnector>,
) -> Result<Vec<(&'static str, String)>, Lost> {
    let mutual = tls.is_some();
    let made = tls.map(|tls| builder().use_preconfigured_tls(tls).tls_info(true).build());
    let client = made.as_ref().unwrap_or_else(|| &CLIENT).as_ref();
    let client = client.map_err(|error| unreachable(url, what_is_wrong(error)))?;
    let hello = Hello::new(credentials);
    let mut request = client.get(challenge_url(url));
    for (name, value) in hello.headers() {
        request = request.header(name, value);
    }
    let answer = request.send().await.map_err(|error| unreachable(url, what_is_wrong(&error)))?;
    let certificate = answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
    if mutual && !certificate.is_some_and(|certificate| certifies(certificate, &credentials.server)) {
        return Err(Lost::NotTrusted { url: url.to_string(), reason: NotProven::OtherCertificate });
    }
    // One that refuses says all the same what it is.
    match (hello.answer(answer.headers()), answer.status()) {
        (Ok(proof), StatusCode::NO_CONTENT) => Ok(proof),
        (Err(NotProven::NoProof), status) if status != StatusCode::NO_CONTENT => {
            Err(unreachable(url, other_port(status)))
        }
        (Err(reason), _) => Err(Lost::NotTrusted { url: url.to_string(), reason }),
        (Ok(_), status) => Err(unreachable(url, other_port(status))),
    }
}

/// Beside the path of socket.io.
fn challenge_url(url: &Url) -> Url {
    let mut at = url.clone();
    let scheme = if matches!(url.scheme(), "wss" | "https") { "https" } else { "http" };
    at.set_scheme(scheme).expect("all these schemes can stand for each other");
    at.set_path(&format!("{}{CHALLENGE_PATH}", url.path().trim_end_matches('/')));
    at.set_query(None);
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_asked_for_on_the_port_of_the_link() {
        for (url, expected) in [
            ("ws://gateway:3002", "http://gateway:3002/challenge"),
            ("http://[::1]:3002/?x=y", "http://[::1]:3002/challenge"),
            ("wss://ring.example/corro/", "https://ring.example/corro/challenge"),
        ] {
            assert_eq!(challenge_url(&Url::parse(url).unwrap()).as_str(), expected);
        }
    }
}
