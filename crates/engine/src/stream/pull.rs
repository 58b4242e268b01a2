//! What `docker pull` shows while it works.

use axum::response::Response;
use futures::stream::{self, BoxStream, StreamExt};
use skep_model::ImageRef;

use super::load::failure;
use super::{chunked, line};
use crate::backend::image::{LayerState, News, PullEvent};
use crate::error::Error;
use crate::routes::answer::Refusal;
use crate::translate::signed;
use crate::types::image::{JsonMessage, ProgressDetail};

/// The first event decides the status: an image that the registry does not have is a plain refusal, not the end of a stream.
pub(crate) async fn response(
    reference: ImageRef,
    mut events: BoxStream<'static, Result<PullEvent, Error>>,
) -> Result<Response, Refusal> {
    let first = events.next().await.transpose()?;
    let all = stream::iter(first.map(Ok)).chain(events);
    let lines = all.flat_map(move |event| {
        let messages = match event {
            Ok(event) => messages(&reference, event),
            Err(error) => vec![failure(&error)],
        };
        stream::iter(messages.into_iter().map(|message| line(&message)))
    });
    Ok(chunked("application/json", lines))
}

fn messages(reference: &ImageRef, event: PullEvent) -> Vec<JsonMessage> {
    match event {
        PullEvent::Found { repository, wanted } => {
            vec![JsonMessage { status: format!("Pulling from {repository}"), id: wanted, ..JsonMessage::default() }]
        }
        PullEvent::Layer { id, state } => vec![layer(id, state)],
        PullEvent::Pulled { digest, news } => {
            let news = match news {
                News::UpToDate => "Image is up to date",
                News::Newer => "Downloaded newer image",
            };
            let status = |status: String| JsonMessage { status, ..JsonMessage::default() };
            vec![status(format!("Digest: {digest}")), status(format!("Status: {news} for {}", reference.familiar()))]
        }
    }
}

fn layer(id: String, state: LayerState) -> JsonMessage {
    let (status, progress) = match state {
        LayerState::Exists => ("Already exists", (0, 0)),
        LayerState::Queued => ("Pulling fs layer", (0, 0)),
        LayerState::Downloading(done, total) => ("Downloading", (done, total)),
        LayerState::Downloaded => ("Download complete", (0, 0)),
        LayerState::Extracting(done, total) => ("Extracting", (done, total)),
        LayerState::Complete => ("Pull complete", (0, 0)),
    };
    let detail = ProgressDetail { current: signed(progress.0), total: signed(progress.1) };
    JsonMessage { status: status.to_owned(), progress_detail: Some(detail), id, ..JsonMessage::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_dockers() {
        let reference: ImageRef = "reg.example:5000/web:2".parse().unwrap();
        let found = PullEvent::Found { repository: "web".into(), wanted: "2".into() };
        let layer = PullEvent::Layer { id: "5daed6db7a6f".into(), state: LayerState::Downloading(5, 9) };
        let pulled = PullEvent::Pulled { digest: "sha256:dd".into(), news: News::UpToDate };
        let said: Vec<_> = [found, layer, pulled]
            .into_iter()
            .flat_map(|event| messages(&reference, event))
            .map(|message| serde_json::to_string(&message).unwrap())
            .collect();
        let expected = [
            r#"{"status":"Pulling from web","id":"2"}"#,
            r#"{"status":"Downloading","progressDetail":{"current":5,"total":9},"id":"5daed6db7a6f"}"#,
            r#"{"status":"Digest: sha256:dd"}"#,
            r#"{"status":"Status: Image is up to date for reg.example:5000/web:2"}"#,
        ];
        assert_eq!(said, expected);
    }
}
