//! The open connections, by number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::message::Message;
use socketioxide::extract::SocketRef;

use crate::engine::{Query, SessionId, ToProcess};

/// The open connections. Cheap to clone.
#[derive(Clone, Default)]
pub struct Connections {
    open: Arc<Mutex<HashMap<SessionId, SocketRef>>>,
    last: Arc<AtomicU64>,
}

impl Connections {
    pub(super) fn add(&self, socket: SocketRef) -> SessionId {
        let session = SessionId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.lock().insert(session, socket);
        session
    }

    pub(super) fn remove(&self, session: SessionId) {
        self.lock().remove(&session);
    }

    /// Sends a message. Returns false where it cannot leave: the connection is gone, or so much is waiting on
    /// it that the peer must be hanging.
    pub fn send(&self, session: SessionId, message: &ToProcess) -> bool {
        let Some(socket) = self.lock().get(&session).cloned() else {
            return false;
        };
        match message {
            ToProcess::Registered(message) => emit(&socket, message),
            ToProcess::Expected(message) => emit(&socket, message),
            ToProcess::Refused(message) => emit(&socket, message),
            ToProcess::Ring(message) => emit(&socket, message),
            ToProcess::Reads(message) => emit(&socket, message),
            ToProcess::Writes(message) => emit(&socket, &**message),
            ToProcess::Query(Query::Page(message)) => emit(&socket, message),
            ToProcess::Query(Query::Count(message)) => emit(&socket, message),
            ToProcess::Query(Query::Changes(message)) => emit(&socket, message),
            ToProcess::Query(Query::Tombstones(message)) => emit(&socket, message),
            ToProcess::Query(Query::Digests(message)) => emit(&socket, message),
            ToProcess::Merge(message) => emit(&socket, message),
            ToProcess::Renew(message) => emit(&socket, message),
            ToProcess::Released(message) => emit(&socket, message),
            ToProcess::Beat(message) => emit(&socket, message),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, SocketRef>> {
        // The map is whole after each of the single calls made under the lock, so a panic elsewhere cannot
        // harm it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn emit<M: Message>(socket: &SocketRef, message: &M) -> bool {
    socket.emit(M::EVENT, &message.encode()).is_ok()
}
