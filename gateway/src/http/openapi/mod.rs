//! The words in which a handler's annotation `#[utoipa::path(…)]` says what it takes and what it answers.
//!
//! * [`parameters`]: what a request says besides its body. [`schemas`]: bodies.
//! * [`answers`]: what goes well. [`problems`]: what can fail, out of the one table of kinds.
//!
//! The document itself is made in [`crate::http`]'s `document`.

pub(super) mod answers;
mod parameters;
pub(super) mod problems;
pub(super) mod schemas;

pub(super) use answers::{Created, TheUser};
pub(super) use parameters::{
    CheckQuery, CountQuery, IdempotencyKey, LastSeen, ListQuery, PartitionNumber, PutConditions,
    ReadConditions, UserPath, WriteConditions,
};
pub(super) use schemas::{example_check, example_cluster, example_user};
