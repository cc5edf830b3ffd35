//! Ports: whether they are free, and what to say where they are not.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::Context;
use process::Addresses;

/// How long to wait for a port: the processes of a demo that was killed a moment ago may hold it still.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a process prints where its port is taken, by whatever words it says it with.
const IN_USE: &str = "Address already in use";

/// The port to use for `asked`: itself, if it is free, or any free one for 0.
///
/// # Errors
/// Where it is taken: one line that says what to do.
pub(crate) async fn free(asked: u16, variable: &str) -> anyhow::Result<u16> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match process::listen(&Addresses::loopback(), asked) {
            Ok(listener) => return Ok(listener.local_addr()?.port()),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                anyhow::ensure!(Instant::now() < deadline, taken(asked, variable));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("port {asked} ({variable}) cannot be used"));
            }
        }
    }
}

/// What to say where a port is taken.
pub(crate) fn taken(port: u16, variable: &str) -> String {
    format!(
        "port {port} is taken by another program: stop that one, or choose another port, for example \
         {variable}={}",
        port.checked_add(1000).unwrap_or(port - 1000)
    )
}

/// Whether the last words of a process say that its port is taken: another program was quicker after the
/// check.
pub(crate) fn is_taken(last_words: &str) -> bool {
    last_words.contains(IN_USE)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_what_to_do() {
        for address in ["0.0.0.0", "127.0.0.1", "::", "::1"] {
            let Ok(listener) = TcpListener::bind((address, 0)) else {
                println!("skipped: there is no {address} here");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let refused = free(port, "REST_PORT").await.unwrap_err().to_string();
            assert!(
                refused.contains(&format!("port {port} is taken")) && refused.contains("REST_PORT="),
                "{address}: {refused}"
            );
            drop(listener);
            assert_eq!(free(port, "REST_PORT").await.unwrap(), port);
        }
        assert_ne!(free(0, "REST_PORT").await.unwrap(), 0);
    }

    #[test]
    fn the_words_of_the_system_are_recognised() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let error = TcpListener::bind(listener.local_addr().unwrap()).unwrap_err();
        assert!(is_taken(&format!("Error: cannot listen: {error}")));
        assert!(taken(65000, "REST_PORT").ends_with("REST_PORT=64000"));
    }
}
