//! What travels on the links.
//!
//! Every message is one socket.io event with **one argument: a string that holds JSON**. The string form
//! passes both libraries untouched (JSON escapes all control bytes, and nothing is decoded twice), and one
//! event can carry a whole batch. JSON in a JSON string would have each of its many quotes escaped, and
//! unescaped on the other side. So quotes and apostrophes change places on the way, and the frames say
//! `{'beat':7}`. No acknowledgements of the transport are used: a batch carries an id of its own and is
//! answered by an event with the results in the same order.
//!
//! * [`link`]: between the gateway and a db-process.
//! * [`query`]: on the same connection, questions about a whole copy.
//! * [`replication`]: between a copy and the other copy of its partition, db-process to db-process.
//! * [`packed`]: the lists in there.
//!
//! Requests and answers are separate types, so that a message that a side can never receive does not compile.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Names the event of each message.
macro_rules! events {
    ($($message:ty => $event:literal),* $(,)?) => {
        $(impl $crate::message::Message for $message { const EVENT: &'static str = $event; })*
    };
}

pub mod link;
pub mod packed;
pub mod query;
pub mod replication;

/// Revision of the messages. Processes of different revisions refuse each other at registration.
pub const REVISION: u32 = 5;

/// At most this many operations travel in one frame, but for op-log entries to a copy that is far behind.
pub const MAX_BATCH: usize = 256;

/// A batch is closed once it holds this many bytes of JSON, or before.
pub const MAX_FRAME_BYTES: usize = 1 << 20;

/// A message with the name of the event that carries it. The name says the direction too: no two messages
/// share one.
pub trait Message: Serialize + DeserializeOwned {
    /// Name of the socket.io event.
    const EVENT: &'static str;

    /// Whether quotes stay in their place: what two processes say before they know that they speak the same
    /// revision.
    const PLAIN: bool = false;

    /// The argument of the event.
    fn encode(&self) -> String {
        // Only maps with other keys than strings, and errors of a custom `Serialize`, cannot be written.
        let json = serde_json::to_string(self).expect("a message has neither");
        if Self::PLAIN { json } else { with_quotes_swapped(json) }
    }

    /// Reads the argument of an event.
    ///
    /// # Errors
    /// If the text is not such a message: it comes from another program, or another revision.
    fn decode(text: &str) -> Result<Self, serde_json::Error> {
        // A message is an object, and all but an empty one begin with the name of a field.
        if text.starts_with("{'") {
            serde_json::from_str(&with_quotes_swapped(text.to_owned()))
        } else {
            serde_json::from_str(text)
        }
    }
}

/// Quotes and apostrophes in each other's place. Done twice it is undone.
fn with_quotes_swapped(text: String) -> String {
    let mut bytes = text.into_bytes();
    for byte in &mut bytes {
        *byte = match *byte {
            b'"' => b'\'',
            b'\'' => b'"',
            other => other,
        };
    }
    String::from_utf8(bytes).expect("one ASCII character in the place of another leaves UTF-8 as it was")
}
