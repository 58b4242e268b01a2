//! Chores of the house: `cargo xtask gen | bpf | kernels | layers | licences | bench`.

mod bench;
mod bpf;
mod gen_rpc;
mod kernels;
mod layers;
mod licences;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Chores of the house")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Rebuild the code generated from proto/
    Gen {
        /// Change nothing; fail when the committed code is not what proto/ gives
        #[arg(long)]
        check: bool,
    },
    /// Rebuild the eBPF object from bpf/ (needs clang-19 and llvm-19)
    Bpf {
        /// Change nothing; fail when the committed object is not what bpf/ gives
        #[arg(long)]
        check: bool,
    },
    /// Run the data plane's tests and a small swarm on other kernels, in QEMU (root, Debian 12; minutes)
    Kernels(kernels::Flags),
    /// Measure: what packets cost on each path, or how fast a swarm reacts (root)
    Bench {
        /// What to measure; everything when left out
        what: Option<bench::Bench>,
        /// Options of the bench itself; `cargo xtask bench mesh --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Check that dependencies between crates point down only
    Layers,
    /// Check licences of dependencies, and that none of them compiles C unexpectedly
    Licences,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().chore {
        Chore::Gen { check } => gen_rpc::run(check),
        Chore::Bpf { check } => bpf::run(check),
        Chore::Kernels(flags) => kernels::run(&flags),
        Chore::Bench { what, options } => bench::run(what, &options),
        Chore::Layers => layers::run(),
        Chore::Licences => licences::run(),
    }
}
