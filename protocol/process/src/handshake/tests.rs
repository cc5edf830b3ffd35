//! Both sides against each other, and against those who try something else.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

const NOW: Duration = Duration::from_secs(60);

fn secret(text: &str) -> Secret {
    text.parse().unwrap()
}

fn credentials(text: &str) -> Credentials {
    Credentials {
        secret: secret(text),
        link: Link::Member,
        client: "db-1".to_owned(),
        server: GATEWAY.to_owned(),
        tls: None,
    }
}

fn gateway(text: &str) -> Challenger {
    Challenger::new(secret(text), Link::Member, GATEWAY)
}

fn headers(pairs: impl IntoIterator<Item = (&'static str, String)>) -> HeaderMap {
    let header = |(name, value): (&'static str, String)| {
        (HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap())
    };
    pairs.into_iter().map(header).collect()
}

/// The answer of a server to a client, and what the client says to that.
fn meet(client: &Credentials, server: &Challenger) -> Result<Result<HeaderMap, NotProven>, Rejected> {
    let hello = Hello::new(client);
    let challenge = server.challenge(NOW, &headers(hello.headers()))?;
    Ok(hello.answer(&headers(challenge.headers)).map(headers))
}

/// What a client of that ring opens its WebSocket with.
fn proof(server: &Challenger) -> HeaderMap {
    meet(&credentials("sesame"), server).unwrap().unwrap()
}

#[test]
fn both_prove_themselves_and_the_secret_is_in_nothing_that_is_sent() {
    let mut server = gateway("sesame");
    let request = proof(&server);
    assert_eq!(server.admit(NOW, &request), Ok(Proven { name: "db-1".to_owned() }));
    let sent = format!("{request:?}");
    assert!(!sent.contains("sesame") && !sent.contains(&to_text(b"sesame")), "{sent}");
}

#[test]
fn a_server_without_the_secret_gets_no_proof() {
    assert_eq!(meet(&credentials("sesame"), &gateway("barley")), Ok(Err(NotProven::WrongProof)));
}

#[test]
fn a_client_without_the_secret_can_only_guess() {
    let mut server = gateway("sesame");
    let wrong = credentials("barley");
    let hello = Hello::new(&wrong);
    let challenge = server.challenge(NOW, &headers(hello.headers())).unwrap();
    let answer = headers(challenge.headers);
    assert_eq!(hello.answer(&answer), Err(NotProven::WrongProof));
    // It goes on all the same, with a proof of its own secret, and with what the server has sent.
    let bytes: [u8; challenger::CHALLENGE_BYTES] = bytes(&answer, CHALLENGE).unwrap();
    let Credentials { secret, link, client, server: name, .. } = &wrong;
    let transcript = Transcript { link: *link, client, server: name, nonce: &hello.nonce, challenge: &bytes };
    let guess = to_text(&transcript.of_client(secret).finalize().into_bytes());
    let reflected = answer[PROOF].to_str().unwrap().to_owned();
    for proof in [guess, reflected] {
        let mut request = headers(hello.headers());
        request.extend(headers([(CHALLENGE, to_text(&bytes)), (PROOF, proof)]));
        assert_eq!(server.admit(NOW, &request), Err(Rejected::WrongProof));
    }
    assert_eq!(server.remembered(), 0, "a stranger costs no memory");
}

#[test]
fn a_proof_is_good_once() {
    let mut server = gateway("sesame");
    let request = proof(&server);
    assert!(server.admit(NOW, &request).is_ok());
    assert_eq!(server.admit(NOW, &request), Err(Rejected::Used));
    assert_eq!(server.admit(NOW + LIFETIME, &request), Err(Rejected::Used));
    assert_eq!(server.admit(NOW + 2 * LIFETIME, &request), Err(Rejected::BadChallenge));
    let late = meet(&credentials("sesame"), &server).unwrap().unwrap();
    assert_eq!(server.admit(NOW + LIFETIME + Duration::from_millis(1), &late), Err(Rejected::BadChallenge));
}

#[test]
fn what_was_used_is_forgotten_when_it_has_expired() {
    let mut server = gateway("sesame");
    for _ in 0..3 {
        let request = proof(&server);
        assert!(server.admit(NOW, &request).is_ok());
    }
    assert_eq!(server.remembered(), 3);
    let (later, client) = (NOW + 2 * LIFETIME, credentials("sesame"));
    let hello = Hello::new(&client);
    let challenge = server.challenge(later, &headers(hello.headers())).unwrap();
    let request = headers(hello.answer(&headers(challenge.headers)).unwrap());
    assert!(server.admit(later, &request).is_ok());
    assert_eq!(server.remembered(), 1);
}

#[test]
fn a_proof_is_for_one_process_one_name_and_one_role() {
    let mut server = gateway("sesame");
    let mut change = |name: &'static str, value: String| {
        let mut request = proof(&server);
        request.extend(headers([(name, value)]));
        server.admit(NOW, &request)
    };
    assert_eq!(change(NAME, "db-2".to_owned()), Err(Rejected::BadChallenge));
    assert_eq!(change(NONCE, to_text(&[7; 32])), Err(Rejected::BadChallenge));
    assert_eq!(change(CHALLENGE, to_text(&[0; challenger::CHALLENGE_BYTES])), Err(Rejected::BadChallenge));
    assert_eq!(change(PROOF, to_text(&[0; 32])), Err(Rejected::WrongProof));
    assert_eq!(change(ROLE, "follower".to_owned()), Err(Rejected::OtherRole));
    for (name, value) in [(PROOF, ""), (CHALLENGE, "AAAA"), (NONCE, "*"), (NAME, ""), (NAME, "db 1")] {
        assert_eq!(change(name, value.to_owned()), Err(Rejected::NoProof), "{name}");
    }
    assert_eq!(change(NAME, "x".repeat(65)), Err(Rejected::NoProof));
    let request = proof(&server);
    let mut restarted = gateway("sesame");
    assert_eq!(restarted.admit(NOW, &request), Err(Rejected::BadChallenge));
}

#[test]
fn a_client_takes_no_other_server_for_the_one_that_it_wants() {
    let neighbour = |name: &str| Challenger::new(secret("sesame"), Link::Follower, name);
    let follower = |server: &str| Credentials {
        link: Link::Follower,
        server: server.to_owned(),
        ..credentials("sesame")
    };
    assert!(meet(&follower("db-2"), &neighbour("db-2")).unwrap().is_ok());
    assert_eq!(meet(&follower("db-2"), &neighbour("db-0")), Ok(Err(NotProven::OtherName)));
    assert_eq!(meet(&follower("db-2"), &gateway("sesame")).unwrap_err(), Rejected::OtherRole);
    // One that claims to be another: it is part of the proof.
    let client = follower("db-2");
    let hello = Hello::new(&client);
    let mut answer = headers(neighbour("db-0").challenge(NOW, &headers(hello.headers())).unwrap().headers);
    answer.extend(headers([(NAME, "db-2".to_owned())]));
    assert_eq!(hello.answer(&answer), Err(NotProven::WrongProof));
    let answer = headers(gateway("sesame").introduction());
    assert_eq!(hello.answer(&answer), Err(NotProven::OtherRole));
    assert_eq!(hello.answer(&HeaderMap::new()), Err(NotProven::NoProof));
}

#[test]
fn the_parts_of_a_proof_do_not_run_into_each_other() {
    let tag = |parts: &[&str]| keyed(b"key", parts.iter().map(|part| part.as_bytes())).finalize();
    assert!(tag(&["ab", "c"]) != tag(&["a", "bc"]));
    assert!(tag(&["ab"]) != tag(&["ab", ""]));
}
