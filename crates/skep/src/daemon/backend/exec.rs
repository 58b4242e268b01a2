//! Further programs in containers of this node.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use skep_engine::backend::exec::{self as api, ExecSession, ExecSpec, Resize, WindowSize};
use skep_engine::backend::log::LogStream;
use skep_engine::{Error, ErrorKind};
use skep_runtime::{self as runtime, ContainerId, ExecCommand, ExecFiles, RuntimeError, Stdin, TerminalSize};
use tokio_stream::wrappers::ReceiverStream;

use crate::daemon::node::LocalNode;

/// Runs a program in the container with that whole id.
pub(super) async fn run(node: &LocalNode, container: &str, spec: ExecSpec) -> Result<ExecSession, Error> {
    let missing = || Error::new(ErrorKind::NotFound, format!("No such container: {container}"));
    let id: ContainerId = container.parse().map_err(|_| missing())?;
    let ExecSpec { command, env, user, dir, files } = spec;
    let command = ExecCommand { args: command, env, user, dir, files: asked(files) };
    let mut exec = node.runtime.exec(&id, command).await.map_err(|e| refusal(&e))?;
    let stream = |stream| match stream {
        runtime::LogStream::Stdout => LogStream::Stdout,
        runtime::LogStream::Stderr => LogStream::Stderr,
    };
    let (_, nothing) = tokio::sync::mpsc::channel(1);
    let output = ReceiverStream::new(std::mem::replace(&mut exec.output, nothing));
    let resize = exec.terminal.take().map(|terminal| -> Resize {
        Arc::new(move |size| terminal.resize(TerminalSize { rows: size.rows, columns: size.columns }))
    });
    Ok(ExecSession {
        pid: exec.pid,
        input: exec.input.take(),
        output: output.map(move |(from, piece)| (stream(from), Bytes::from(piece))).boxed(),
        resize,
        ended: Box::pin(async move { exec.ended().await }),
    })
}

fn asked(files: api::ExecFiles) -> ExecFiles {
    match files {
        api::ExecFiles::Nothing => ExecFiles::Nothing,
        api::ExecFiles::Output => ExecFiles::Pipes { stdin: Stdin::Empty },
        api::ExecFiles::InputAndOutput => ExecFiles::Pipes { stdin: Stdin::Open },
        api::ExecFiles::Terminal(WindowSize { rows, columns }) => ExecFiles::Terminal(TerminalSize { rows, columns }),
    }
}

fn refusal(error: &RuntimeError) -> Error {
    let kind = match error {
        RuntimeError::NotFound(_) => ErrorKind::NotFound,
        RuntimeError::NotRunning(_) => ErrorKind::Conflict,
        RuntimeError::Exec { .. } => ErrorKind::InvalidArgument,
        _ => ErrorKind::Unknown,
    };
    Error::new(kind, error.to_string())
}
