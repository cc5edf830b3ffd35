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
//! * [`usage`]: what a db-process uses of its machine.
//! * [`packed`]: the lists in there.
//!
//! Each side of a link has one type with all messages that it sends, for example [`link::ToProcess`]. Both
//! ends use it as it is, so that a message that a side can never receive does not compile.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// One type of all messages that one side sends on a link, with the event of each. Behind `in` is what holds
/// a message that is large or shared; behind `+` are more messages, which have a type of their own.
/// `(PLAIN)` is for [`Message::PLAIN`].
macro_rules! messages {
    (
        $(#[$attribute:meta])*
        $all:ident {
            $($message:ident $(in $holder:ident)? = $event:literal $(($plain:ident))?,)*
            $(+ $others:ident)?
        }
    ) => {
        $(impl $crate::message::Message for $message {
            const EVENT: &'static str = $event;
            $(const $plain: bool = true;)?
        })*

        $(#[$attribute])*
        #[derive(Debug, Clone)]
        pub enum $all {
            $(
                #[doc = concat!("See [`", stringify!($message), "`].")]
                $message(messages!(@held $message $($holder)?)),
            )*
            $(
                #[doc = concat!("See [`", stringify!($others), "`].")]
                $others($others),
            )?
        }

        impl $all {
            /// Names of the events of these messages, without those that have a type of their own.
            pub const EVENTS: &'static [&'static str] = &[$($event),*];

            /// Name and argument of the event.
            pub fn encode(&self) -> (&'static str, String) {
                match self {
                    $(Self::$message(message) => (
                        <$message as $crate::message::Message>::EVENT,
                        <$message as $crate::message::Message>::encode(message),
                    ),)*
                    $(Self::$others(message) => message.encode(),)?
                }
            }

            /// Reads an event.
            ///
            /// # Errors
            /// If the other side sends no such message.
            pub fn decode(event: &str, text: &str) -> Result<Self, $crate::message::Unreadable> {
                match event {
                    $($event => Ok(Self::$message(
                        <$message as $crate::message::Message>::decode(text)?.into(),
                    )),)*
                    $(event if $others::EVENTS.contains(&event) => {
                        $others::decode(event, text).map(Self::$others)
                    })?
                    _ => Err($crate::message::Unreadable::Event),
                }
            }
        }
    };
    (@held $message:ident) => { $message };
    (@held $message:ident $holder:ident) => { $holder<$message> };
}

pub mod link;
pub mod packed;
pub mod query;
pub mod replication;
pub mod usage;

/// Revision of the messages. Processes of different revisions refuse each other at registration.
pub const REVISION: u32 = 7;

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

/// An event that is no message of the other side. It shows nothing of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Its name is unknown.
    #[error("there is no such event")]
    Event,
    /// Its argument is not such a message.
    #[error("not such a message (line {line}, column {column})")]
    Text {
        /// Where that shows.
        line: usize,
        /// Where that shows.
        column: usize,
    },
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self::Text { line: error.line(), column: error.column() }
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
