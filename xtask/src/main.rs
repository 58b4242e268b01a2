//! Chores of the house: `cargo xtask gen | bpf | layers | licences`.

mod bpf;
mod gen_rpc;
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
    /// Rebuild the eBPF object from bpf/ (needs clang-19)
    Bpf {
        /// Change nothing; fail when the committed object is not what bpf/ gives
        #[arg(long)]
        check: bool,
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
        Chore::Layers => layers::run(),
        Chore::Licences => licences::run(),
    }
}
