//! The db-process of a ring.
