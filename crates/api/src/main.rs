//! The program: see [`api::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    let _faults = domain::faults::Faults::from_environment();
    api::cli::run()
}
