//! The program `forebay`: see the library's front page for the architecture.

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay::memory::bound_arenas();
    forebay::failpoints::arm();
    forebay::cli::main()
}
