//! What `docker load` shows while it works.

use axum::response::Response;
use futures::stream::{self, BoxStream, StreamExt};

use super::{chunked, line};
use crate::backend::image::LoadEvent;
use crate::error::Error;
use crate::routes::answer::Refusal;
use crate::translate::image::digest;
use crate::translate::signed;
use crate::types::image::{ErrorDetail, JsonMessage, ProgressDetail};

/// The first event decides the status: an archive that is none at all is a plain refusal, not the end of a stream.
pub(crate) async fn response(
    mut events: BoxStream<'static, Result<LoadEvent, Error>>,
    quiet: bool,
) -> Result<Response, Refusal> {
    let first = events.next().await.transpose()?;
    let all = stream::iter(first.map(Ok)).chain(events);
    let lines = all.filter_map(move |event| {
        let message = match event {
            Ok(LoadEvent::Layer { .. }) if quiet => None,
            Ok(event) => Some(message(event)),
            Err(error) => Some(failure(&error)),
        };
        std::future::ready(message.as_ref().map(line))
    });
    Ok(chunked("application/json", lines))
}

fn message(event: LoadEvent) -> JsonMessage {
    match event {
        LoadEvent::Layer { id, current, total } => JsonMessage {
            status: "Loading layer".to_owned(),
            progress_detail: Some(ProgressDetail { current: signed(current), total: total.map_or(0, signed) }),
            id,
            ..JsonMessage::default()
        },
        LoadEvent::Loaded { id, reference } => {
            let what = match reference {
                Some(reference) => format!("Loaded image: {}\n", reference.familiar()),
                None => format!("Loaded image ID: {}\n", digest(&id)),
            };
            JsonMessage { stream: what, ..JsonMessage::default() }
        }
    }
}

pub(super) fn failure(error: &Error) -> JsonMessage {
    JsonMessage {
        error_detail: Some(ErrorDetail { code: 0, message: error.message.clone() }),
        error: error.message.clone(),
        ..JsonMessage::default()
    }
}
