//! Requests as bytes, and the users that they are about.
//!
//! A user of the load follows from a number: its id, its name, its email, its group. The ids are as good as
//! random, so that they spread over the partitions and over each database. As JSON each user has 120 bytes.

use std::io::Write;
use std::sync::Arc;

use url::Position;
use uuid::{Builder, Uuid};

use super::super::Kind;
use super::Spec;
use crate::client::Endpoint;
use crate::random::Random;

/// What a request expects for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) status: u16,
    /// As good: what an earlier run has put in is there already.
    pub(super) or: u16,
}

/// Makes one request after the other.
#[derive(Debug)]
pub(super) struct Requests {
    kind: Kind,
    first: u64,
    users: u64,
    /// Users taken one after the other so far, counted from `first`.
    taken: u64,
    random: Random,
    /// The first part of every path.
    path: String,
    /// The lines of the head that are always the same.
    head: String,
    ids: Option<Arc<[Uuid]>>,
}

impl Requests {
    pub(super) fn new(spec: &Spec) -> Self {
        let Endpoint { base, authorization, .. } = &spec.target;
        let mut head = format!(" HTTP/1.1\r\nhost: {}\r\n", &base[Position::BeforeHost..Position::AfterPort]);
        if let Some(text) = authorization.as_ref().and_then(|value| value.to_str().ok()) {
            head += &format!("authorization: {text}\r\n");
        }
        Self {
            kind: spec.kind,
            first: spec.users.start,
            users: spec.users.end - spec.users.start,
            ids: spec.ids.clone(),
            taken: 0,
            random: Random::new(spec.seed),
            path: format!("{}/api/user", spec.target.prefix()),
            head,
        }
    }

    /// How many users there are.
    pub(super) fn users(&self) -> u64 {
        self.users
    }

    /// How many of them were taken one after the other.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Writes the next request. `None` where all users are taken.
    pub(super) fn next(&mut self, request: &mut Vec<u8>) -> Option<Expected> {
        request.clear();
        let kind = match self.kind {
            Kind::Mix(reads) if self.random.percent(reads) => Kind::Get,
            Kind::Mix(_) => Kind::Put,
            kind => kind,
        };
        let (status, or) = match kind {
            Kind::Get => {
                let id = id_of(self.any());
                self.write(request, "GET", &format!("/{id}"), "");
                (200, 200)
            }
            Kind::Put | Kind::Mix(_) => {
                let id = id_of(self.any());
                let number = self.random.next();
                let (name, group) = (name_of(number), group_of(number));
                self.write(
                    request,
                    "PUT",
                    "/",
                    &format!(r#"{{"id":"{id}","name":"{name}","group":{group}}}"#),
                );
                (200, 200)
            }
            Kind::Delete | Kind::Clear => {
                let number = self.take()?;
                let id = self.ids.as_ref().map_or_else(|| id_of(number), |ids| ids[number as usize]);
                self.write(request, "DELETE", &format!("/{id}"), "");
                (204, if kind == Kind::Clear { 404 } else { 204 })
            }
            Kind::Post => {
                let number = self.random.next();
                self.post(request, "", number);
                (201, 201)
            }
            Kind::Fill => {
                let number = self.take()?;
                self.post(request, &format!(r#""id":"{}","#, id_of(number)), number);
                (201, 409)
            }
        };
        Some(Expected { status, or })
    }

    fn take(&mut self) -> Option<u64> {
        let number = (self.taken < self.users).then(|| self.first + self.taken)?;
        self.taken += 1;
        Some(number)
    }

    fn any(&mut self) -> u64 {
        self.random.between(self.first, self.first + self.users)
    }

    fn post(&self, request: &mut Vec<u8>, id: &str, number: u64) {
        let (name, email, group) = (name_of(number), email_of(number), group_of(number));
        let body = format!(r#"{{{id}"name":"{name}","email":"{email}","group":{group}}}"#);
        self.write(request, "POST", "/", &body);
    }

    fn write(&self, request: &mut Vec<u8>, method: &str, path: &str, body: &str) {
        write!(request, "{method} {}{path}{}", self.path, self.head).expect("a vector takes all");
        if !body.is_empty() {
            let length = body.len();
            write!(request, "content-type: application/json\r\ncontent-length: {length}\r\n")
                .expect("a vector takes all");
        }
        write!(request, "\r\n{body}").expect("a vector takes all");
    }
}

/// The id of the user with that number.
pub(super) fn id_of(number: u64) -> Uuid {
    let mut random = Random::new(number);
    let bytes = (u128::from(random.next()) << 64) | u128::from(random.next());
    Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid()
}

/// 19 characters.
fn name_of(number: u64) -> String {
    format!("Ada Lovelace {:06}", number % 1_000_000)
}

/// 21 characters.
fn email_of(number: u64) -> String {
    format!("u{:08}@example.org", number % 100_000_000)
}

/// 5 digits; a thousand groups.
fn group_of(number: u64) -> u64 {
    10_000 + number % 1_000
}

#[cfg(test)]
mod tests {
    use protocol::User;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn requests(kind: Kind, users: std::ops::Range<u64>) -> Requests {
        let target = Endpoint::parse("http://[::1]:8080/below/", Some("sesame")).unwrap();
        let spec = Spec {
            target,
            processes: Vec::new(),
            kind,
            connections: 1,
            rate: None,
            warm_up: std::time::Duration::ZERO,
            length: std::time::Duration::MAX,
            users,
            seed: 7,
            made: None,
            ids: None,
            shutdown: CancellationToken::new(),
        };
        Requests::new(&spec)
    }

    fn next(requests: &mut Requests) -> Option<(String, u16)> {
        let mut request = b"rubbish".to_vec();
        let expected = requests.next(&mut request)?;
        Some((String::from_utf8(request).unwrap(), expected.status))
    }

    #[test]
    fn a_user_has_120_bytes() {
        for number in [0, 1, 99_999, u64::MAX] {
            let user = User {
                id: id_of(number),
                name: name_of(number),
                email: email_of(number),
                group: group_of(number).try_into().unwrap(),
            };
            assert_eq!(serde_json::to_string(&user).unwrap().len(), 120, "{user:?}");
        }
        assert_eq!(id_of(5), id_of(5));
        assert_ne!(id_of(5), id_of(6));
    }

    #[test]
    fn requests_are_whole_and_all_users_are_taken_once() {
        let mut fill = requests(Kind::Fill, 3..5);
        for number in 3..5 {
            let (request, status) = next(&mut fill).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("POST /below/api/user/ HTTP/1.1\r\nhost: [::1]:8080\r\n"), "{head}");
            assert!(head.contains("authorization: Bearer sesame\r\n"), "{head}");
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
            assert_eq!(serde_json::from_str::<User>(body).unwrap().id, id_of(number));
            assert_eq!(status, 201);
        }
        assert_eq!((next(&mut fill), fill.taken()), (None, 2));
        let mut delete = requests(Kind::Delete, 3..5);
        assert!(
            next(&mut delete).unwrap().0.starts_with(&format!("DELETE /below/api/user/{} HTTP", id_of(3)))
        );
        assert_eq!(delete.taken(), 1);
    }

    #[test]
    fn a_mix_has_its_share_of_reads() {
        let mut mix = requests(Kind::Mix(95), 0..10);
        let gets = (0..10_000).filter(|_| next(&mut mix).unwrap().0.starts_with("GET ")).count();
        assert!((9_400..9_600).contains(&gets), "{gets}");
    }
}
