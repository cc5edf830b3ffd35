//! `corro bench-ceiling`: the ceiling as a process. It prints its port and serves until it is killed.
//!
//! It is the HTTP side of the gateway, with all its routes, over a map in memory. One task takes the requests
//! from the channel on which the engine takes them, and answers at once: no db-process, no socket to one, no
//! disk. What a ring takes beyond it is the price of keeping users safe.
//!
//! It is for measurements only. It forgets everything, remembers no `Idempotency-Key`, and answers 503 to all
//! that does not concern one user.

use std::collections::HashMap;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Context;
use gateway::engine_task::{EngineHandle, Request, Written};
use gateway::http::{self, Access, HttpSettings};
use process::{Listener, TlsFiles, server};
use protocol::message::link::{Found, WriteAnswer};
use protocol::{Condition, Operation, Outcome, User, UserId, Version};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

/// With these it speaks TLS.
pub(super) const CERT_FILE: &str = "TLS_CERT_FILE";
pub(super) const KEY_FILE: &str = "TLS_KEY_FILE";

/// Requests that are taken from the channel at once.
const BATCH: usize = 1_024;

/// Serves on a free port of this machine.
///
/// # Errors
/// If there is no port.
pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port can be opened")?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
    let (engine, requests) = EngineHandle::channel();
    tokio::spawn(answer(requests));
    let settings = HttpSettings { access: Access::new(Vec::new(), true), ..HttpSettings::default() };
    let router = http::router(engine, &settings);
    let [cert, key] = [CERT_FILE, KEY_FILE].map(|name| std::env::var_os(name).map(PathBuf::from));
    let files = TlsFiles::given("TLS", cert.as_deref(), key.as_deref());
    let tls = files.and_then(|files| files.map(http::tls).transpose()).map_err(anyhow::Error::msg)?;
    let listener = Listener::from(listener).with_tls(tls);
    server::serve(listener, router, http::policy(http::MAX_CONNECTIONS), CancellationToken::new()).await;
    Ok(())
}

async fn answer(mut requests: UnboundedReceiver<Request>) {
    let mut users = Users::default();
    let mut batch = Vec::with_capacity(BATCH);
    while requests.recv_many(&mut batch, BATCH).await > 0 {
        batch.drain(..).for_each(|request| users.answer(request));
    }
}

/// All users.
#[derive(Default)]
struct Users {
    /// Counts the writes.
    version: u64,
    users: HashMap<UserId, Stored>,
}

struct Stored {
    user: User,
    /// As it is answered.
    found: Found,
}

impl Stored {
    fn new(version: Version, user: User) -> Self {
        let found = Found::new(version, &user);
        Self { user, found }
    }
}

impl Users {
    /// A request without an answer is a 503. An answer that no handler awaits any more is dropped.
    fn answer(&mut self, request: Request) {
        match request {
            Request::Read { id, reply } => {
                let _ = reply.send(Ok(self.users.get(&id).map(|stored| stored.found.clone())));
            }
            Request::Write { id, operation, condition, omit_user, reply } => {
                self.version += 1;
                let version = Version(self.version);
                let outcome = self.write(id, version, operation, condition.as_ref());
                let shown = !(omit_user && outcome == Outcome::Applied);
                let user = self.users.get(&id).filter(|_| shown).map(|stored| stored.found.clone());
                let _ =
                    reply.send(Written { version, result: Ok(WriteAnswer { outcome, sequence: 0, user }) });
            }
            _ => {}
        }
    }

    fn write(
        &mut self,
        id: UserId,
        version: Version,
        operation: Operation,
        condition: Option<&Condition>,
    ) -> Outcome {
        let there = self.users.get(&id);
        if let Some(stored) = there
            && condition.is_some_and(|condition| !condition.holds(stored.found.0))
        {
            return Outcome::PreconditionFailed;
        }
        let deletes = matches!(operation, Operation::Delete | Operation::Purge(_));
        let before = match (&operation, there) {
            (Operation::Create(_), Some(_)) => return Outcome::Exists,
            (Operation::Create(_), None) => None,
            (_, None) => return Outcome::NotFound,
            (_, Some(stored)) => Some(stored.user.clone()),
        };
        if deletes {
            self.users.remove(&id);
            return Outcome::Applied;
        }
        let before = before.unwrap_or(User { id, name: String::new(), email: String::new(), group: 0 });
        let change = operation.into_change();
        let user = User {
            id,
            name: change.name.unwrap_or(before.name),
            email: change.email.unwrap_or(before.email),
            group: change.group.unwrap_or(before.group),
        };
        self.users.insert(id, Stored::new(version, user));
        Outcome::Applied
    }
}

#[cfg(test)]
mod tests {
    use protocol::Change;
    use tokio::sync::oneshot;

    use super::*;

    const ID: UserId = UserId::from_u128(0x0190_a5b2_7c3d_7e4f_8a1b_2c3d_4e5f_6071);

    fn ask(
        users: &mut Users,
        operation: Operation,
        condition: Option<Condition>,
    ) -> (Outcome, Option<String>) {
        let (reply, mut answer) = oneshot::channel();
        users.answer(Request::Write { id: ID, operation, condition, omit_user: false, reply });
        let answer = answer.try_recv().expect("an answer at once").result.expect("no failure");
        (answer.outcome, answer.user.map(|found| found.1.get().to_owned()))
    }

    fn read(users: &mut Users) -> Option<Found> {
        let (reply, mut answer) = oneshot::channel();
        users.answer(Request::Read { id: ID, reply });
        answer.try_recv().expect("an answer at once").expect("no failure")
    }

    #[test]
    fn it_stores_users_as_the_ring_does() {
        let mut users = Users::default();
        let group = |group| Change { group: Some(group), ..Change::default() };
        let ada = Change { name: Some("Ada".to_owned()), email: Some("a@b".to_owned()), ..group(0) };
        let shown = |group| Some(format!(r#"{{"id":"{ID}","name":"Ada","email":"a@b","group":{group}}}"#));
        assert_eq!(ask(&mut users, Operation::Update(group(1)), None), (Outcome::NotFound, None));
        assert_eq!(ask(&mut users, Operation::Create(ada.clone()), None), (Outcome::Applied, shown(0)));
        assert_eq!(ask(&mut users, Operation::Create(ada), None).0, Outcome::Exists);
        let first = read(&mut users).expect("a user").0;
        assert_eq!(ask(&mut users, Operation::Update(group(7)), None), (Outcome::Applied, shown(7)));
        let stale = Some(Condition::Versions(vec![first]));
        assert_eq!(ask(&mut users, Operation::Delete, stale).0, Outcome::PreconditionFailed);
        assert_eq!(read(&mut users).map(|found| found.1.get().to_owned()), shown(7));
        assert_eq!(ask(&mut users, Operation::Delete, None), (Outcome::Applied, None));
        assert_eq!(ask(&mut users, Operation::Delete, None).0, Outcome::NotFound);
        assert!(read(&mut users).is_none());
    }
}
