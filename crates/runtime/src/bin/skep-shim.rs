//! The shim alone: `skep-shim shim <directory of a container>`, for tests and for programs that embed the runtime without
//! being skep.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|first| first != "shim") {
        eprintln!("usage: skep-shim shim <directory of a container>");
        return ExitCode::FAILURE;
    }
    skep_runtime::shim_main(args)
}
