//! The binary: arguments in, exit code out.

use std::process::ExitCode;

// measured: glibc's allocator costs a quarter more CPU time per request (docs/performance.md)
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    authgate::cli::run(std::env::args_os())
}
