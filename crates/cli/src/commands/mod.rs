//! The tree of subcommands: one file per noun.

mod archive;
mod attach;
mod container;
mod data;
mod disk;
mod ending;
mod exec;
mod image;
mod mesh;
mod network;
mod node;
mod registry;
mod service;
mod shared;
mod swarm;
mod system;
mod tasks;
mod usage;
mod volume;

use clap::Subcommand;

use crate::session::Session;

/// What skep can ask a daemon for: docker's verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the versions of this program and of the daemon
    Version(system::VersionFlags),
    /// Show the daemon's state
    Info(system::InfoFlags),
    /// Make, join, change and leave a swarm
    #[command(subcommand)]
    Swarm(swarm::Command),
    /// The machines of the swarm
    #[command(subcommand)]
    Node(node::Command),
    /// What the swarm runs
    #[command(subcommand)]
    Service(Box<service::Command>),
    /// The swarm's networks
    #[command(subcommand)]
    Network(network::Command),
    /// The swarm's secrets
    #[command(subcommand)]
    Secret(data::Command),
    /// The swarm's configs
    #[command(subcommand)]
    Config(data::Command),
    /// This node's volumes
    #[command(subcommand)]
    Volume(volume::Command),
    /// This node's disk
    #[command(subcommand)]
    System(disk::Command),
    /// The routing mesh of this node
    #[command(subcommand)]
    Mesh(mesh::Command),
    /// This node's images
    #[command(subcommand)]
    Image(image::Command),
    /// List this node's images (image ls)
    Images(image::ListFlags),
    /// Load images from an archive (image load)
    Load(image::LoadFlags),
    /// Write images into an archive (image save)
    Save(archive::SaveFlags),
    /// Make an image of a root file system (image import)
    Import(archive::ImportFlags),
    /// Pull an image from its registry
    Pull(registry::PullFlags),
    /// Log in at a registry
    Login(registry::LoginFlags),
    /// Forget a login
    Logout {
        /// The registry; Docker's own when there is none
        #[arg(default_value = "")]
        server: String,
    },
    /// Remove images (image rm)
    Rmi(image::RmFlags),
    /// Give an image another name (image tag)
    Tag {
        /// The image
        source: String,
        /// The new name, with or without a tag
        target: String,
    },
    /// List this node's containers
    Ps(container::PsFlags),
    /// Remove containers of this node: the swarm replaces their tasks
    Rm(container::RmFlags),
    /// Send a signal to containers of this node
    Kill(ending::KillFlags),
    /// Stop containers of this node: the swarm replaces their tasks
    Stop(ending::StopFlags),
    /// Wait for the end of containers of this node, and show their exit codes
    Wait(ending::WaitFlags),
    /// Run a further program in a container of this node
    Exec(exec::ExecFlags),
    /// Show what containers of this node use, as it changes
    Stats(usage::StatsFlags),
    /// Show the processes of a container of this node
    Top(usage::TopFlags),
    /// Show what a container wrote
    Logs(container::LogsFlags),
    /// Show an object of any kind as JSON
    Inspect(container::InspectFlags),
    /// Show what happens, as it happens
    Events(system::EventsFlags),
}

/// Carries out a command.
pub(crate) async fn run(session: &mut Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Version(flags) => system::version(session, flags).await,
        Command::Info(flags) => system::info(session, flags).await,
        Command::Swarm(command) => swarm::run(session, command).await,
        Command::Node(command) => node::run(session, command).await,
        Command::Service(command) => Box::pin(service::run(session, *command)).await,
        Command::Network(command) => network::run(session, command).await,
        Command::Secret(command) => data::run(session, data::Kind::Secret, command).await,
        Command::Config(command) => data::run(session, data::Kind::Config, command).await,
        Command::Volume(command) => volume::run(session, command).await,
        Command::System(command) => disk::run(session, command).await,
        Command::Mesh(command) => mesh::run(session, command).await,
        Command::Image(command) => image::run(session, command).await,
        Command::Images(flags) => image::list(session, flags).await,
        Command::Load(flags) => image::load(session, flags).await,
        Command::Save(flags) => archive::save(session, flags).await,
        Command::Import(flags) => archive::import(session, flags).await,
        Command::Pull(flags) => registry::pull(session, flags).await,
        Command::Login(flags) => registry::login(session, flags).await,
        Command::Logout { server } => registry::logout(session, &server),
        Command::Rmi(flags) => image::remove(session, flags).await,
        Command::Tag { source, target } => image::tag(session, &source, &target).await,
        Command::Ps(flags) => container::list(session, flags).await,
        Command::Rm(flags) => container::remove(session, flags).await,
        Command::Kill(flags) => ending::kill(session, flags).await,
        Command::Stop(flags) => ending::stop(session, flags).await,
        Command::Wait(flags) => ending::wait(session, flags).await,
        Command::Exec(flags) => exec::run(session, flags).await,
        Command::Stats(flags) => usage::stats(session, flags).await,
        Command::Top(flags) => usage::top(session, flags).await,
        Command::Logs(flags) => container::logs(session, flags).await,
        Command::Inspect(flags) => container::inspect(session, flags).await,
        Command::Events(flags) => system::events(session, flags).await,
    }
}
