//! Images of this node.

use std::collections::BTreeMap;

use skep_model::ImageRef;

use super::{health, signed, text};
use crate::backend::image::{ImageConfig, ImageInfo, Removed};
use crate::types::image as wire;
use crate::types::service::Empty;

/// `sha256:…`
#[must_use]
pub fn digest(id: &str) -> String {
    format!("sha256:{id}")
}

fn tags(image: &ImageInfo) -> Vec<String> {
    image.refs.iter().filter(|r| r.tag().is_some() && r.digest().is_none()).map(ImageRef::familiar).collect()
}

fn digests(image: &ImageInfo) -> Vec<String> {
    let by_digest = |r: &ImageRef| r.digest().map(|d| format!("{}@{d}", r.familiar_name()));
    image.refs.iter().filter_map(by_digest).collect()
}

/// Writes an image as lists show it. `containers` is how many use it, -1 when nobody asked.
#[must_use]
pub fn summary(image: &ImageInfo, containers: i64) -> wire::ImageSummary {
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    wire::ImageSummary {
        containers,
        created: image.created.map_or(0, skep_model::Timestamp::as_second),
        id: digest(&image.id),
        labels: (!image.config.labels.is_empty()).then(|| image.config.labels.clone()),
        parent_id: String::new(),
        repo_digests: some(digests(image)),
        repo_tags: some(tags(image)),
        shared_size: -1,
        size: signed(image.size),
        virtual_size: 0,
    }
}

/// Writes an image in full. `driver` is the name of what keeps it on disk.
#[must_use]
pub fn inspect(image: &ImageInfo, driver: &str) -> wire::ImageInspect {
    wire::ImageInspect {
        id: digest(&image.id),
        repo_tags: tags(image),
        repo_digests: digests(image),
        created: image.created.map(Into::into),
        author: image.author.clone(),
        config: config(&image.config),
        architecture: image.architecture.clone(),
        os: image.os.clone(),
        size: signed(image.size),
        graph_driver: wire::GraphDriver { data: None, name: driver.to_owned() },
        root_fs: wire::RootFs { kind: "layers".to_owned(), layers: image.layers.clone() },
        ..wire::ImageInspect::default()
    }
}

/// Names as keys of an object with nothing in it.
#[must_use]
pub fn set(names: &[String]) -> BTreeMap<String, Empty> {
    names.iter().map(|n| (n.clone(), Empty {})).collect()
}

fn config(config: &ImageConfig) -> wire::ImageConfig {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    wire::ImageConfig {
        user: config.user.clone(),
        exposed_ports: set(&config.exposed_ports),
        env: some(&config.env),
        cmd: some(&config.cmd),
        volumes: (!config.volumes.is_empty()).then(|| set(&config.volumes)),
        working_dir: config.working_dir.clone(),
        entrypoint: some(&config.entrypoint),
        labels: (!config.labels.is_empty()).then(|| config.labels.clone()),
        stop_signal: text(config.stop_signal.as_ref()),
        healthcheck: config.health.as_ref().map(health::to_wire),
        ..wire::ImageConfig::default()
    }
}

/// Writes what removing an image has done.
#[must_use]
pub fn removed(removed: &Removed) -> wire::ImageDeleted {
    match removed {
        Removed::Untagged(reference) => {
            wire::ImageDeleted { untagged: reference.familiar(), ..wire::ImageDeleted::default() }
        }
        Removed::Deleted(id) => wire::ImageDeleted { deleted: digest(id), ..wire::ImageDeleted::default() },
    }
}
