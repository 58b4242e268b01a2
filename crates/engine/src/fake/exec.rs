//! Programs in the fake's containers: `echo`, `cat`, and `exit`.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use tokio_util::io::ReaderStream;

use crate::backend::exec::{ExecFiles, ExecSession, ExecSpec, WindowSize};
use crate::backend::log::LogStream;
use crate::error::Error;

/// Runs one of the programs that there are.
pub(super) fn run(spec: &ExecSpec) -> Result<ExecSession, Error> {
    let words: Vec<&str> = spec.command.iter().map(String::as_str).collect();
    let said = |stream, text: String| stream::iter([(stream, Bytes::from(text))]).boxed();
    let (output, input, code) = match words.as_slice() {
        ["echo", rest @ ..] => (said(LogStream::Stdout, format!("{}\n", rest.join(" "))), None, 0),
        ["exit", code] => (said(LogStream::Stderr, "sorry\n".to_owned()), None, code.parse().unwrap_or(1)),
        ["cat"] => {
            let (theirs, ours) = tokio::io::simplex(1 << 16);
            let pieces = ReaderStream::new(theirs).filter_map(|piece| std::future::ready(piece.ok()));
            (pieces.map(|piece| (LogStream::Stdout, piece)).boxed(), Some(Box::new(ours) as Box<_>), 0)
        }
        _ => {
            let name = spec.command.first().map_or("", String::as_str);
            return Err(Error::invalid(format!("exec: \"{name}\": executable file not found in $PATH")));
        }
    };
    let size = Arc::new(Mutex::new(None::<WindowSize>));
    let resize = matches!(spec.files, ExecFiles::Terminal(_)).then(|| -> crate::backend::exec::Resize {
        Arc::new(move |asked| {
            *size.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
            Ok(())
        })
    });
    Ok(ExecSession { pid: 4243, input, output, resize, ended: Box::pin(async move { Some(code) }) })
}
