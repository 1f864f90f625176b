//! The program: see [`api::cli`].

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A request allocates hundreds of small pieces, and frees many of them on another thread: the C library's allocator spends a
/// fifth of the service's processor time on that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let _faults = domain::faults::Faults::from_environment();
    api::cli::run()
}
