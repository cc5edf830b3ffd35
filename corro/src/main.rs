//! The command `corro`; see the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    corro::main()
}
