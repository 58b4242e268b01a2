//! What is driven.

mod api;
mod files;
mod images;
mod messages;
mod names;
mod tokens;

/// A reader of bytes that somebody else made.
#[derive(Debug)]
pub struct Target {
    /// What it is called, also as a folder of the corpus.
    pub name: &'static str,
    /// Reads, and panics when something is wrong with that.
    pub run: fn(&[u8]),
    /// Valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const ALL: &[Target] = &[
    Target { name: "api", run: api::run, seeds: api::seeds },
    Target { name: "rpc", run: messages::run, seeds: messages::seeds },
    Target { name: "raft_message", run: files::message, seeds: files::messages },
    Target { name: "raft_entry", run: files::entry, seeds: files::entries },
    Target { name: "raft_snapshot", run: files::snapshot, seeds: files::snapshots },
    Target { name: "raft_key", run: files::key, seeds: files::keys },
    Target { name: "token", run: tokens::run, seeds: tokens::seeds },
    Target { name: "dns", run: names::run, seeds: names::seeds },
    Target { name: "manifest", run: images::manifest, seeds: images::manifests },
    Target { name: "image_config", run: images::config, seeds: images::configs },
    Target { name: "layer", run: images::layer, seeds: images::layers },
    Target { name: "archive", run: images::archive, seeds: images::archives },
];
