//! The `convoy` binary: everything is in the library's `cli`.

use std::process::ExitCode;

/// glibc's allocator keeps an arena for each thread, and input rows are taken on one thread and given back on another: its
/// resident memory grew by 4 to 6 % between a thousand requests and ten thousand, this one's does not (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    convoy::cli::main()
}
