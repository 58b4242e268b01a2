//! `exec`: a further program in a container of this node.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::shared::segment;
use crate::session::Session;
use crate::terminal::Raw;
use crate::view::View as _;

/// Flags of `exec`.
#[derive(Debug, Args)]
pub struct ExecFlags {
    /// Let it go on alone
    #[arg(short, long)]
    detach: bool,
    /// The keys that leave its terminal without ending it: ctrl-a,b
    #[arg(long, default_value = "", hide_default_value = true)]
    detach_keys: String,
    /// Variables of its environment: NAME=value
    #[arg(short, long)]
    env: Vec<String>,
    /// Give it what comes in
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Who it runs as: name or uid, with :group
    #[arg(short, long, default_value = "", hide_default_value = true)]
    user: String,
    /// The directory that it begins in
    #[arg(short, long, default_value = "", hide_default_value = true)]
    workdir: String,
    /// The container
    container: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// `exec`. The exit code is the program's.
pub(super) async fn run(session: &mut Session, flags: ExecFlags) -> anyhow::Result<()> {
    if flags.interactive && flags.tty && !flags.detach && !crate::terminal::is_one() {
        anyhow::bail!("the input device is not a TTY");
    }
    let size = crate::terminal::size().filter(|_| flags.tty);
    let attached = !flags.detach;
    let create = json!({
        "User": flags.user,
        "Tty": flags.tty,
        "ConsoleSize": size,
        "AttachStdin": attached && flags.interactive,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "DetachKeys": flags.detach_keys,
        "Env": flags.env,
        "WorkingDir": flags.workdir,
        "Cmd": flags.command,
    });
    let path = format!("/containers/{}/exec", segment(&flags.container));
    let created = session.client.post(&path, &[], &create).await?;
    let id = created.text("/Id").to_owned();
    let start = json!({ "Detach": flags.detach, "Tty": flags.tty, "ConsoleSize": size });
    let path = format!("/exec/{id}/start");
    if flags.detach {
        session.client.post(&path, &[], &start).await?;
        return Ok(());
    }
    let connection = session.client.upgrade(&path, &start).await?;
    let raw = (flags.tty && flags.interactive).then(Raw::begin).transpose()?;
    let talk =
        super::attach::Talk { interactive: flags.interactive, tty: flags.tty, resize: format!("/exec/{id}/resize") };
    let talked = super::attach::talk(session, connection, &talk).await;
    drop(raw);
    talked?;
    let ended = session.client.get(&format!("/exec/{id}/json"), &[]).await?;
    let code = ended.get("ExitCode").and_then(Value::as_u64).and_then(|code| u8::try_from(code).ok());
    session.exit = code.map(ExitCode::from);
    Ok(())
}
