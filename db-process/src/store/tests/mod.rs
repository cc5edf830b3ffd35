//! Tests of all stores.

pub(crate) mod random;
mod suite;
