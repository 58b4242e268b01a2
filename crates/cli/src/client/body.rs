//! Bodies of requests, and lines of streamed answers.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::SinkExt as _;
use futures::channel::mpsc;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What a request carries.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// How much of a file is read at a time.
const PIECE: usize = 256 * 1024;

/// A body that is read while it is sent, in pieces.
pub(crate) fn file_body(mut reader: impl AsyncRead + Send + Unpin + 'static) -> RequestBody {
    let (mut sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let mut piece = BytesMut::with_capacity(PIECE);
            let item = match reader.read_buf(&mut piece).await {
                Ok(0) => return,
                Ok(_) => Ok(Frame::data(piece.freeze())),
                Err(e) => Err(e),
            };
            let last = item.is_err();
            // A closed channel: the daemon has stopped listening, and its answer says why.
            if sender.send(item).await.is_err() || last {
                return;
            }
        }
    });
    StreamBody::new(receiver).boxed_unsync()
}
