//! `service`: what the swarm runs.

mod data;
mod edit;
mod flags;
mod list;
mod logs;
mod pretty;

use anyhow::bail;
use clap::Subcommand;
use serde_json::{Value, json};

use super::data::Kind;
use super::registry;
use super::shared::{self, InspectFlags, ListFlags, segment};
use super::tasks::{self, TaskFlags};

use crate::credentials::Credentials;
use crate::progress;
use crate::session::Session;
use crate::view::View as _;

/// The verbs of services.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a service
    Create(Box<flags::CreateFlags>),
    /// List services
    Ls(ListFlags),
    /// List the tasks of services
    Ps {
        #[command(flatten)]
        flags: TaskFlags,
        /// Services
        #[arg(required = true)]
        services: Vec<String>,
    },
    /// Show services, as JSON or for people
    Inspect(InspectFlags),
    /// Change a service
    Update(Box<flags::UpdateFlags>),
    /// Set how many tasks services have: web=5
    Scale {
        #[command(flatten)]
        wait: flags::Wait,
        /// service=number
        #[arg(required = true)]
        scales: Vec<String>,
    },
    /// Go back to what a service was before its last update
    Rollback {
        #[command(flatten)]
        wait: flags::Wait,
        /// The service
        service: String,
    },
    /// Show what the tasks of a service wrote
    Logs(logs::LogsFlags),
    /// Remove services
    Rm {
        /// Services
        #[arg(required = true)]
        services: Vec<String>,
    },
}

/// Carries out a verb.
pub(super) async fn run(session: &mut Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(flags) => create(session, &flags).await,
        Command::Ls(flags) => list::list(session, &flags).await,
        Command::Ps { flags, services } => {
            let mut filter = Vec::new();
            for name in services {
                filter.push(format!("service={}", get(session, &name).await?.text("/ID")));
            }
            tasks::list(session, &flags, filter).await
        }
        Command::Inspect(flags) => {
            let query = [("insertDefaults", "true".to_owned())];
            shared::inspect(session, &flags, |name| format!("/services/{}", segment(name)), &query, pretty::pretty)
                .await
        }
        Command::Update(flags) => update(session, &flags).await,
        Command::Scale { wait, scales } => scale(session, &wait, &scales).await,
        Command::Rollback { wait, service } => {
            let current = get(session, &service).await?;
            send(session, &current, &current["Spec"], Some(("rollback", "previous"))).await?;
            converge(session, &wait, &service, current.text("/ID")).await
        }
        Command::Logs(flags) => logs::logs(session, &flags).await,
        Command::Rm { services } => {
            for name in services {
                match session.client.delete(&format!("/services/{}", segment(&name)), &[]).await {
                    Ok(_) => session.line(name)?,
                    Err(error) => session.report(&error),
                }
            }
            Ok(())
        }
    }
}

async fn get(session: &Session, name: &str) -> anyhow::Result<Value> {
    session.client.get(&format!("/services/{}", segment(name)), &[("insertDefaults", "false".to_owned())]).await
}

async fn send(session: &Session, current: &Value, spec: &Value, more: Option<(&str, &str)>) -> anyhow::Result<()> {
    send_as(session, None, current, spec, more).await
}

async fn send_as(
    session: &Session,
    auth: Option<&str>,
    current: &Value,
    spec: &Value,
    more: Option<(&str, &str)>,
) -> anyhow::Result<()> {
    let mut query = vec![("version", current.int("/Version/Index").to_string())];
    query.extend(more.map(|(key, value)| (key, value.to_owned())));
    let path = format!("/services/{}/update", segment(current.text("/ID")));
    let answer = session.client.post_as(auth, &path, &query, spec).await?;
    warn(&answer);
    Ok(())
}

/// The daemon's remarks about something that it did all the same.
fn warn(answer: &Value) {
    for warning in answer.texts("/Warnings") {
        eprintln!("{warning}");
    }
}

/// Names the service, and stays until it has converged unless the flags say otherwise.
async fn converge(session: &mut Session, wait: &flags::Wait, shown: &str, id: &str) -> anyhow::Result<()> {
    session.line(shown)?;
    session.out.flush()?;
    if wait.detach { Ok(()) } else { progress::follow(session, id, wait.quiet).await }
}

/// What is handed to the nodes, where that is asked for.
fn login(flags: &flags::Scalars, spec: &Value) -> anyhow::Result<Option<String>> {
    let image = spec.text("/TaskTemplate/ContainerSpec/Image");
    flags.with_registry_auth.then(|| Ok(Credentials::of_user()?.header(image))).transpose()
}

async fn create(session: &mut Session, flags: &flags::CreateFlags) -> anyhow::Result<()> {
    let mut spec = edit::created(flags)?;
    let networks = by_id(session, &flags.network).await?;
    edit::networks(&mut spec, networks, &[]);
    if !flags.scalars.no_resolve_image {
        registry::pin(session, &mut spec).await?;
    }
    data::change(session, Kind::Secret, &mut spec, &flags.secret, &[]).await?;
    data::change(session, Kind::Config, &mut spec, &flags.config, &[]).await?;
    let auth = login(&flags.scalars, &spec)?;
    let answer = session.client.post_as(auth.as_deref(), "/services/create", &[], &spec).await?;
    warn(&answer);
    let id = answer.text("/ID").to_owned();
    converge(session, &flags.wait, &id, &id).await
}

async fn network_id(session: &Session, name: &str) -> anyhow::Result<String> {
    let path = format!("/networks/{}", segment(name));
    let network = session.client.get(&path, &[("scope", "swarm".to_owned())]).await?;
    Ok(network.text("/Id").to_owned())
}

/// Attachments with the networks' identifiers in place of their names.
async fn by_id(session: &Session, given: &[Value]) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    for attachment in given {
        let mut attachment = attachment.clone();
        attachment["Target"] = json!(network_id(session, attachment.text("/Target")).await?);
        found.push(attachment);
    }
    Ok(found)
}

async fn update(session: &mut Session, flags: &flags::UpdateFlags) -> anyhow::Result<()> {
    let current = get(session, &flags.service).await?;
    let mut spec = current["Spec"].clone();
    edit::update(&mut spec, flags)?;
    data::change(session, Kind::Secret, &mut spec, &flags.secret_add, &flags.secret_rm).await?;
    data::change(session, Kind::Config, &mut spec, &flags.config_add, &flags.config_rm).await?;
    let added = by_id(session, &flags.network_add).await?;
    let mut removed = Vec::new();
    for name in &flags.network_rm {
        removed.push(network_id(session, name).await?);
    }
    edit::networks(&mut spec, added, &removed);
    if flags.image.is_some() && !flags.scalars.no_resolve_image {
        registry::pin(session, &mut spec).await?;
    }
    let auth = login(&flags.scalars, &spec)?;
    let more = match &auth {
        _ if flags.rollback => Some(("rollback", "previous")),
        None => Some(("registryAuthFrom", "spec")),
        Some(_) => None,
    };
    send_as(session, auth.as_deref(), &current, &spec, more).await?;
    converge(session, &flags.wait, &flags.service, current.text("/ID")).await
}

async fn scale(session: &mut Session, wait: &flags::Wait, scales: &[String]) -> anyhow::Result<()> {
    let mut wanted = Vec::new();
    for text in scales {
        match text.split_once('=').map(|(name, number)| (name, number.parse::<u64>())) {
            Some((name, Ok(number))) => wanted.push((name, number)),
            _ => bail!("invalid scale {text:?}: write service=number, such as web=5"),
        }
    }
    let mut changed = Vec::new();
    for (name, number) in wanted {
        match scale_one(session, name, number).await {
            Ok(id) => {
                session.line(format!("{name} scaled to {number}"))?;
                changed.push(id);
            }
            Err(error) => session.report(&error),
        }
    }
    for id in changed.iter().filter(|_| !wait.detach) {
        progress::follow(session, id, wait.quiet).await?;
    }
    Ok(())
}

async fn scale_one(session: &Session, name: &str, number: u64) -> anyhow::Result<String> {
    let current = get(session, name).await?;
    let mut spec = current["Spec"].clone();
    let Some(mode) = spec["Mode"].as_object_mut().and_then(|m| m.get_mut("Replicated")) else {
        bail!("{name}: only a replicated service can be scaled");
    };
    mode["Replicas"] = json!(number);
    send(session, &current, &spec, None).await?;
    Ok(current.text("/ID").to_owned())
}
