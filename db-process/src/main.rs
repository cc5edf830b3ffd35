//! The db-process as a process of its own.

fn main() {}
