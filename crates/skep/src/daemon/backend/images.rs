//! Images: the store's words into the API's.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use skep_engine::backend::image::{ImageConfig, ImageInfo, Import, LoadEvent, Prune, Removal, Removed};
use skep_engine::{Error, ErrorKind};
use skep_model::ImageRef;
use skep_runtime::images::{self, Image, ImageError, ImageId, Images, InUse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::daemon::node::LocalNode;

/// Runs something that blocks on the disk.
pub(crate) async fn blocking<R: Send + 'static>(
    images: &Arc<Images>,
    work: impl FnOnce(&Images) -> Result<R, ImageError> + Send + 'static,
) -> Result<R, Error> {
    let images = images.clone();
    let done = tokio::task::spawn_blocking(move || work(&images)).await;
    done.map_err(|e| Error::new(ErrorKind::Unknown, e.to_string()))?.map_err(|e| refusal(&e))
}

/// What kind of refusal an error of the store is.
pub(crate) fn refusal(error: &ImageError) -> Error {
    let kind = match error {
        ImageError::NotFound(_) => ErrorKind::NotFound,
        ImageError::InUse(_) | ImageError::ManyReferences(_) => ErrorKind::Conflict,
        ImageError::Locked(_) => ErrorKind::Unavailable,
        ImageError::BadIndex { .. } | ImageError::Mount { .. } | ImageError::Io { .. } => ErrorKind::Unknown,
        _ => ErrorKind::InvalidArgument,
    };
    Error::new(kind, error.to_string())
}

/// Runs something that needs to know which images containers use. A container that is made meanwhile makes it look again.
pub(crate) async fn unused<R: Send + 'static>(
    node: &LocalNode,
    work: impl Fn(&Images, &InUse) -> Result<R, ImageError> + Send + Sync + 'static,
) -> Result<R, Error> {
    let work = Arc::new(work);
    loop {
        let moment = node.images.moment();
        let containers = node.runtime.list().await.map_err(|e| Error::new(ErrorKind::Unknown, e.to_string()))?;
        let in_use = InUse::new(moment, containers.into_iter().map(|c| c.image).collect());
        let work = work.clone();
        let done = blocking(&node.images, move |images| match work(images, &in_use) {
            Err(ImageError::Moved) => Ok(None),
            done => done.map(Some),
        });
        if let Some(done) = done.await? {
            return Ok(done);
        }
    }
}

pub(crate) fn prune(prune: Prune) -> images::Prune {
    match prune {
        Prune::Untagged => images::Prune::Untagged,
        Prune::Unused => images::Prune::Unused,
    }
}

pub(crate) fn info(image: Image) -> ImageInfo {
    let config = image.config;
    ImageInfo {
        id: image.id.hex(),
        refs: image.refs,
        size: image.size,
        created: image.created,
        architecture: config.architecture,
        os: config.os,
        author: String::new(),
        layers: image.layers.iter().map(ToString::to_string).collect(),
        config: ImageConfig {
            env: config.env,
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            working_dir: config.working_dir,
            user: config.user,
            stop_signal: config.stop_signal,
            exposed_ports: config.exposed_ports.iter().map(|p| format!("{}/{}", p.port, p.protocol)).collect(),
            volumes: config.volumes.into_iter().collect(),
            labels: config.labels,
            health: config.health,
        },
    }
}

/// Loads an archive as it arrives. Progress comes while the client still sends.
pub(crate) fn load(
    images: &Arc<Images>,
    archive: BoxStream<'static, io::Result<Bytes>>,
) -> BoxStream<'static, Result<LoadEvent, Error>> {
    let (events, stream) = mpsc::unbounded_channel();
    let images = images.clone();
    let mut archive = SyncIoBridge::new(StreamReader::new(archive));
    tokio::task::spawn_blocking(move || {
        // A client that has hung up is no reason to stop: what has arrived is loaded.
        let mut tell = |event| {
            for event in progress(event) {
                let _ = events.send(Ok(event));
            }
        };
        if let Err(e) = images.load(&mut archive, &mut tell) {
            let _ = events.send(Err(refusal(&e)));
        }
        // What follows the archive's end is padding: read, so that the client may finish sending.
        let _ = io::copy(&mut archive.by_ref().take(PADDING), &mut io::sink());
    });
    UnboundedReceiverStream::new(stream).boxed()
}

/// Makes an image of a root file system; its id.
pub(crate) async fn import(
    images: &Arc<Images>,
    archive: BoxStream<'static, io::Result<Bytes>>,
    import: Import,
) -> Result<String, Error> {
    let mut archive = SyncIoBridge::new(StreamReader::new(archive));
    let Import { reference, message, config } = import;
    let import = images::Import { reference, message, config };
    blocking(images, move |images| {
        let made = images.import(&mut archive, &import);
        // What follows is padding, or of no use any more: read, so that the client may finish sending and hears what came of it.
        let _ = io::copy(&mut archive, &mut io::sink());
        made.map(|loaded| loaded.id.hex())
    })
    .await
}

/// Writes images into an archive, piece by piece.
pub(crate) async fn save(
    images: &Arc<Images>,
    names: Vec<String>,
) -> Result<BoxStream<'static, io::Result<Bytes>>, Error> {
    let held = blocking(images, move |images| images.to_save(&names)).await?;
    let (pieces, stream) = mpsc::channel(PIECES);
    let images = images.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(e) = images.save(&held, Pieces(pieces.clone())) {
            // A client that has hung up hears nothing, and wants to hear nothing.
            let _ = pieces.blocking_send(Err(io::Error::other(e.to_string())));
        }
    });
    Ok(ReceiverStream::new(stream).boxed())
}

/// How many pieces of an archive wait for a slow client.
const PIECES: usize = 16;

/// Hands on what is written to it.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// tar pads archives to a multiple of its record size; anything longer than this is not read to its end.
const PADDING: u64 = 1 << 20;

fn progress(event: images::LoadEvent) -> Vec<LoadEvent> {
    match event {
        images::LoadEvent::Layer { layer, done, total } => {
            vec![LoadEvent::Layer { id: layer.short(), current: done, total: Some(total) }]
        }
        images::LoadEvent::Moved { .. } => Vec::new(),
        images::LoadEvent::Loaded(loaded) => loaded_events(loaded.id, loaded.refs),
    }
}

fn loaded_events(id: ImageId, refs: Vec<ImageRef>) -> Vec<LoadEvent> {
    let id = id.hex();
    if refs.is_empty() {
        return vec![LoadEvent::Loaded { id, reference: None }];
    }
    refs.into_iter().map(|r| LoadEvent::Loaded { id: id.clone(), reference: Some(r) }).collect()
}

pub(crate) fn removal(removal: Removal) -> images::Removal {
    match removal {
        Removal::IfUnused => images::Removal::Careful,
        Removal::Force => images::Removal::Forced,
    }
}

pub(crate) fn removed(removed: images::Removed) -> Removed {
    match removed {
        images::Removed::Untagged(reference) => Removed::Untagged(reference),
        images::Removed::Deleted(id) => Removed::Deleted(id.hex()),
    }
}
