//! skep's own command line, for machines where no docker CLI is installed: docker's verbs and flags, spoken over the same
//! HTTP API on the daemon's unix socket.
//!
//! * [`Command`] is the tree of subcommands (clap); the binary flattens it next to its own `daemon`, `lab` and `demo`;
//! * [`run`] carries out one of them against the daemon at a host, and answers with the exit code;
//! * inside, `commands/` holds one file per noun, `client/` the HTTP client, `output/` tables, templates and units,
//!   `values/` the syntax of flags ([`publish`] is the one people meet most), `progress` what is drawn while a service
//!   converges.
//!
//! Objects are kept as the JSON that the daemon sent. An update reads a spec, changes the fields that flags name, and
//! sends the rest back untouched, also fields that this program has never heard of.
//!
//! Exit codes: 0 when all was done, 1 when the daemon refused something or could not be reached (the sentence is on
//! stderr), 2 for flags that make no sense (clap's); that of the program after `exec`. It never talks to a registry itself and never reads the daemon's
//! files.

#![forbid(unsafe_code)]

mod client;
mod commands;
mod credentials;
mod output;
mod progress;
pub mod publish;
#[cfg(test)]
mod replay;
mod session;
mod terminal;
mod values;
mod view;

use std::process::ExitCode;

pub use commands::Command;

/// Carries out a command against the daemon at `host`, or else at `$SKEP_HOST`, `$DOCKER_HOST`,
/// `unix:///run/skep/skep.sock`. Results go to stdout. Refusals go to stderr and become exit code 1.
///
/// # Errors
/// None of the command's own: those are printed here, so that they read as docker's do. The `Result` is for the caller's
/// convenience.
pub async fn run(host: Option<String>, command: Command) -> anyhow::Result<ExitCode> {
    let outcome = async {
        let client = client::Client::from_environment(host)?;
        let mut session = session::Session::of_terminal(client);
        commands::run(&mut session, command).await?;
        session.finish()
    };
    match outcome.await {
        Ok(code) => Ok(code),
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{error:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The reader of our stdout went away (`| head`): no failure of the command.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
