//! `save` and `import`: images as archives.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::client::file_body;
use crate::session::Session;

/// Flags of `save`.
#[derive(Debug, Args)]
pub struct SaveFlags {
    /// The archive; otherwise stdout
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// References or identifiers
    #[arg(required = true)]
    images: Vec<String>,
}

/// Flags of `import`.
#[derive(Debug, Args)]
pub struct ImportFlags {
    /// What containers of the image run, as in a Dockerfile: 'CMD ["serve"]', 'ENV A=1'
    #[arg(short, long)]
    change: Vec<String>,
    /// A remark that stays with the image
    #[arg(short, long, default_value = "")]
    message: String,
    /// A root file system in a tar, or "-" for stdin
    file: String,
    /// The image's name
    #[arg(default_value = "")]
    reference: String,
}

/// `save`.
pub(super) async fn save(session: &mut Session, flags: SaveFlags) -> anyhow::Result<()> {
    if flags.output.is_none() && std::io::stdout().is_terminal() {
        anyhow::bail!("an archive is not for a terminal: use -o FILE, or send it somewhere");
    }
    let query: Vec<_> = flags.images.into_iter().map(|name| ("names", name)).collect();
    let mut answer = session.client.stream("/images/get", &query).await?;
    let mut out: Box<dyn tokio::io::AsyncWrite + Unpin> = match &flags.output {
        Some(path) => {
            let file = tokio::fs::File::create(path).await;
            Box::new(file.with_context(|| format!("cannot write {}", path.display()))?)
        }
        None => Box::new(tokio::io::stdout()),
    };
    while let Some(frame) = answer.frame().await {
        if let Ok(bytes) = frame.context("the daemon broke the archive off")?.into_data() {
            out.write_all(&bytes).await.context("cannot write the archive")?;
        }
    }
    out.flush().await.context("cannot write the archive")
}

/// `import`.
pub(super) async fn import(session: &mut Session, flags: ImportFlags) -> anyhow::Result<()> {
    if flags.file.starts_with("http://") || flags.file.starts_with("https://") {
        anyhow::bail!("skep downloads nothing for an import: download it, and name the file");
    }
    let body = if flags.file == "-" {
        file_body(tokio::io::stdin())
    } else {
        file_body(tokio::fs::File::open(&flags.file).await.with_context(|| format!("cannot read {}", flags.file))?)
    };
    let mut query = vec![("fromSrc", "-".to_owned()), ("repo", flags.reference), ("message", flags.message)];
    query.extend(flags.change.into_iter().map(|line| ("changes", line)));
    let answer = session.client.upload("/images/create", &query, body).await?;
    let mut lines = super::system::Lines::default();
    for message in lines.push(&answer.collect().await?.to_bytes())? {
        session.line(message["status"].as_str().unwrap_or_default())?;
    }
    Ok(())
}
