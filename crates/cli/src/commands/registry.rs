//! `pull`, `login` and `logout`: what concerns registries.

use std::io::{Read as _, Write as _};

use anyhow::bail;
use clap::Args;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::shared::segment;
use crate::credentials::{self, Credentials};
use crate::session::Session;
use crate::view::View as _;

/// Flags of `pull`.
#[derive(Debug, Args)]
pub struct PullFlags {
    /// Show nothing but the image's name
    #[arg(short, long)]
    quiet: bool,
    /// The kind of machine, as in linux/arm64, instead of the node's
    #[arg(long)]
    platform: Option<String>,
    /// The image
    image: String,
}

/// Flags of `login`.
#[derive(Debug, Args)]
pub struct LoginFlags {
    /// Who
    #[arg(short, long)]
    username: String,
    /// The secret; others see it in the list of processes
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the secret from stdin
    #[arg(long)]
    password_stdin: bool,
    /// The registry; Docker's own when there is none
    #[arg(default_value = "")]
    server: String,
}

/// `image` with the tag that is meant when none is given.
pub(super) fn tagged(image: &str) -> String {
    let rest = image.rsplit('/').next().unwrap_or(image);
    if rest.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// `pull`.
pub(super) async fn pull(session: &mut Session, flags: PullFlags) -> anyhow::Result<()> {
    let image = tagged(&flags.image);
    if image == format!("{}:latest", flags.image) && !flags.quiet {
        session.line("Using default tag: latest")?;
    }
    let (name, tag) = match image.split_once('@') {
        Some((name, digest)) => (name, digest),
        None => image.rsplit_once(':').unwrap_or((&image, "latest")),
    };
    let mut query = vec![("fromImage", name.to_owned()), ("tag", tag.to_owned())];
    query.extend(flags.platform.map(|platform| ("platform", platform)));
    let auth = Credentials::of_user()?.header(&image);
    let mut answer = session.client.order("/images/create", &query, &auth).await?;
    let mut lines = super::system::Lines::default();
    let mut canvas = Canvas { quiet: flags.quiet, layers: Vec::new() };
    while let Some(frame) = answer.frame().await {
        let Ok(bytes) = frame?.into_data() else { continue };
        for message in lines.push(&bytes)? {
            canvas.show(session, &message)?;
        }
    }
    Ok(session.line(image)?)
}

/// What has been drawn: a line for each layer, on terminals over the one before.
struct Canvas {
    quiet: bool,
    layers: Vec<(String, String)>,
}

impl Canvas {
    fn show(&mut self, session: &mut Session, message: &Value) -> anyhow::Result<()> {
        if let Some(error) = message["error"].as_str() {
            bail!("{error}");
        }
        let (id, status) = (message.text("/id"), message.text("/status"));
        if self.quiet {
            return Ok(());
        }
        if id.is_empty() || status.starts_with("Pulling from") {
            let line = if id.is_empty() { status.to_owned() } else { format!("{id}: {status}") };
            return Ok(session.line(line)?);
        }
        let (done, total) = (message.int("/progressDetail/current"), message.int("/progressDetail/total"));
        if total > 0 && !session.tty {
            return Ok(());
        }
        let share = if total > 0 { format!(" {}%", done * 100 / total) } else { String::new() };
        self.layer(session, id, format!("{id}: {status}{share}"))
    }

    fn layer(&mut self, session: &mut Session, id: &str, text: String) -> anyhow::Result<()> {
        match self.layers.iter_mut().position(|(known, _)| known == id) {
            Some(at) if session.tty => {
                let up = self.layers.len() - at;
                write!(session.out, "\x1b[{up}A\r\x1b[2K{text}\x1b[{up}B\r")?;
                self.layers[at].1 = text;
            }
            Some(at) if self.layers[at].1 == text => {}
            Some(at) => {
                session.line(&text)?;
                self.layers[at].1 = text;
            }
            None => {
                session.line(&text)?;
                self.layers.push((id.to_owned(), text));
            }
        }
        Ok(session.out.flush()?)
    }
}

/// `login`.
pub(super) async fn login(session: &mut Session, flags: LoginFlags) -> anyhow::Result<()> {
    let password = match flags.password {
        Some(password) => password,
        None if flags.password_stdin => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => bail!("give the password with --password-stdin (or --password): it is not asked for"),
    };
    let registry = credentials::host(&flags.server).to_owned();
    let address = credentials::key(&registry);
    let body = json!({ "username": flags.username, "password": password, "serveraddress": address });
    let answer = session.client.post("/auth", &[], &body).await?;
    Credentials::of_user()?.put(&registry, &flags.username, &password)?;
    Ok(session.line(answer.text("/Status"))?)
}

/// `logout`.
pub(super) fn logout(session: &mut Session, server: &str) -> anyhow::Result<()> {
    let registry = credentials::host(server);
    Credentials::of_user()?.remove(registry)?;
    Ok(session.line(format!("Removing login credentials for {}", credentials::key(registry)))?)
}

/// Puts the digest that the image's tag has now into a service's spec, and the machines that there is an image for. A registry that does not say is
/// no reason to stop: the nodes may have the image.
pub(super) async fn pin(session: &Session, spec: &mut Value) -> anyhow::Result<()> {
    let container = &mut spec["TaskTemplate"]["ContainerSpec"];
    let image = tagged(container.text("/Image"));
    if image.contains('@') {
        return Ok(());
    }
    let auth = Credentials::of_user()?.header(&image);
    let Ok(found) = session.client.ask(&format!("/distribution/{}/json", segment(&image)), &auth).await else {
        eprintln!(
            "image {image} could not be accessed on a registry to record\nits digest. Each node will access {image} independently,\npossibly leading to different nodes running different\nversions of the image.\n"
        );
        return Ok(());
    };
    container["Image"] = format!("{image}@{}", found.text("/Descriptor/digest")).into();
    let platform = |p: &Value| json!({ "Architecture": p.text("/architecture"), "OS": p.text("/os") });
    let platforms: Vec<Value> = found.list("/Platforms").iter().map(platform).collect();
    if !platforms.is_empty() {
        spec["TaskTemplate"]["Placement"]["Platforms"] = platforms.into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::tagged;

    #[test]
    fn no_tag_is_the_latest() {
        for (given, meant) in [
            ("nginx", "nginx:latest"),
            ("reg:5000/web", "reg:5000/web:latest"),
            ("reg:5000/web:1", "reg:5000/web:1"),
            ("web@sha256:00", "web@sha256:00"),
        ] {
            assert_eq!(tagged(given), meant);
        }
    }
}
