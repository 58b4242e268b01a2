//! Logs on the wire: frames of `[stream, 0, 0, 0, length as u32 big-endian]` and a line, so that a client can tell standard output
//! from standard error. With a terminal there is only one output, and the lines come bare.

use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};

use super::chunked;
use crate::backend::log::{LogLine, LogStream};
use crate::error::Error;

/// What a client asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) details: bool,
    pub(crate) timestamps: bool,
}

/// How lines look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    asked: Asked,
    framed: bool,
}

impl Shape {
    pub(crate) fn of(asked: &Asked, tty: bool) -> Self {
        Self { asked: *asked, framed: !tty }
    }
}

/// Number of a frame that carries an error of the daemon's own.
const SYSTEM_ERROR: u8 = 3;

pub(crate) fn response(
    lines: BoxStream<'static, Result<LogLine, Error>>,
    shape: Shape,
    closed: impl Future<Output = ()> + Send + 'static,
) -> Response {
    let content_type = match shape.framed {
        true => "application/vnd.docker.multiplexed-stream",
        false => "application/vnd.docker.raw-stream",
    };
    let parts = lines.take_until(Box::pin(closed)).map(move |line| Ok(part(line, shape)));
    chunked(content_type, parts)
}

fn part(line: Result<LogLine, Error>, shape: Shape) -> Bytes {
    match line {
        Ok(line) => {
            let number = match line.stream {
                LogStream::Stdout => 1,
                LogStream::Stderr => 2,
            };
            let text = text(&line, shape.asked);
            if shape.framed { frame(number, &text) } else { text }
        }
        Err(error) if shape.framed => frame(SYSTEM_ERROR, error.message.as_bytes()),
        Err(error) => Bytes::from(error.message + "\n"),
    }
}

pub(super) fn frame(number: u8, text: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + text.len());
    frame.put_slice(&[number, 0, 0, 0]);
    // A line is far shorter than 4 GiB.
    frame.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    frame.put_slice(text);
    frame.freeze()
}

/// The line with what was asked for in front: the time, then where it comes from.
fn text(line: &LogLine, asked: Asked) -> Bytes {
    if !asked.details && !asked.timestamps {
        return line.data.clone();
    }
    let mut text = BytesMut::new();
    if asked.timestamps {
        text.put_slice(nanoseconds(line.at).as_bytes());
        text.put_u8(b' ');
    }
    if asked.details {
        let origin = &line.origin;
        let details = format!(
            "com.docker.swarm.node.id={},com.docker.swarm.service.id={},com.docker.swarm.task.id={} ",
            origin.node, origin.service, origin.task
        );
        text.put_slice(details.as_bytes());
    }
    text.put_slice(&line.data);
    text.freeze()
}

/// RFC 3339 with all nine digits, so that lines of one log align.
fn nanoseconds(at: skep_model::Timestamp) -> String {
    format!("{at:.9}")
}

#[cfg(test)]
mod tests {
    use skep_model::{NodeId, ServiceId, TaskId};

    use super::*;
    use crate::backend::log::LogOrigin;

    fn line() -> LogLine {
        LogLine {
            origin: LogOrigin {
                node: "ccsm2grnpgmzs8ghpfz4ciy5f".parse::<NodeId>().unwrap(),
                service: "uzurrpmpwtqvo7e2n9mdiszth".parse::<ServiceId>().unwrap(),
                task: "njinkzh5rc6xbi2cgrycogozd".parse::<TaskId>().unwrap(),
            },
            stream: LogStream::Stdout,
            at: "2026-11-23T19:13:35.774803677Z".parse().unwrap(),
            data: Bytes::from_static(b"started 374ce5d73834\n"),
        }
    }

    /// The frame that a real engine sent for this line.
    #[test]
    fn a_line_with_everything_looks_as_recorded() {
        let shape = Shape::of(&Asked { details: true, timestamps: true }, false);
        let frame = part(Ok(line()), shape);
        assert_eq!(&frame[..8], [1, 0, 0, 0, 0, 0, 0, 208]);
        assert_eq!(
            std::str::from_utf8(&frame[8..]).unwrap(),
            "2026-11-23T19:13:35.774803677Z com.docker.swarm.node.id=ccsm2grnpgmzs8ghpfz4ciy5f,\
             com.docker.swarm.service.id=uzurrpmpwtqvo7e2n9mdiszth,\
             com.docker.swarm.task.id=njinkzh5rc6xbi2cgrycogozd started 374ce5d73834\n"
        );
    }

    #[test]
    fn a_terminal_has_no_frames() {
        let shape = Shape::of(&Asked { details: false, timestamps: false }, true);
        assert_eq!(&part(Ok(line()), shape)[..], b"started 374ce5d73834\n");
    }

    #[test]
    fn standard_error_and_the_daemons_own_errors_are_told_apart() {
        let shape = Shape::of(&Asked { details: false, timestamps: false }, false);
        let stderr = LogLine { stream: LogStream::Stderr, ..line() };
        assert_eq!(part(Ok(stderr), shape)[0], 2);
        assert_eq!(part(Err(Error::not_found("task", "x")), shape)[0], 3);
    }
}
