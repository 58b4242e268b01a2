//! Further programs in running containers, as the daemon starts and follows them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::files_of::{Containers, Found};
use crate::container::{ContainerId, LogStream};
use crate::error::RuntimeError;
use crate::exec::{Exec, ExecCommand, ExecFiles, Stdin, Terminal, TerminalSize};
use crate::shim::{ExecReport, Order};
use crate::{message, terminal};

/// Bytes that are read at once.
const PIECE: usize = 16 << 10;
/// Pieces that wait for whoever reads them.
const PIECES: usize = 16;
/// How long what a program has started may hold its output after its end, as in Docker.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// A program that runs, and all that the daemon has of it.
pub(super) struct Begun {
    pid: i32,
    shim: Child,
    socket: UnixStream,
    ours: Ours,
    lonely: bool,
}

/// The daemon's ends of a program's files.
enum Ours {
    Nothing,
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(OwnedFd),
}

/// Starts it. Blocks until its program has been executed.
pub(super) fn begin(containers: &Containers, id: &ContainerId, command: ExecCommand) -> Result<Begun, RuntimeError> {
    match containers.find(id)? {
        Some(Found::Running { .. }) => {}
        Some(_) => return Err(RuntimeError::NotRunning(id.clone())),
        None => return Err(RuntimeError::NotFound(id.clone())),
    }
    let failed = |e: io::Error| RuntimeError::Shim { id: id.clone(), reason: e.to_string() };
    let (socket, theirs) = UnixStream::pair().map_err(failed)?;
    let (ours, files) = files(command.files).map_err(failed)?;
    let lonely = command.files == ExecFiles::Nothing;
    let shim = Command::new(containers.program()?)
        .args(["shim", "exec"])
        .arg(containers.dir(id))
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    message::send(socket.as_fd(), &Order(command), &borrowed).map_err(failed)?;
    drop(files);
    let (report, mut given) = match message::receive(socket.as_fd()).map_err(failed)? {
        Some((report, given)) => (report, given.into_iter()),
        None => return Err(failed(io::Error::other("it went away without a word"))),
    };
    match report {
        ExecReport::Started(pid) => {
            let ours = given.next().map_or(ours, Ours::Terminal);
            Ok(Begun { pid, shim, socket, ours, lonely })
        }
        ExecReport::Failed(reason) => Err(RuntimeError::Exec { id: id.clone(), reason }),
        ExecReport::Ended(_) => Err(failed(io::Error::other("it speaks of an end without a beginning"))),
    }
}

/// The pipes that a program is given: our ends, and its.
fn files(asked: ExecFiles) -> io::Result<(Ours, Vec<OwnedFd>)> {
    let ExecFiles::Pipes { stdin } = asked else { return Ok((Ours::Nothing, Vec::new())) };
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from);
    let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
    let (input, theirs) = match stdin {
        Stdin::Open => pipe().map(|(read, write)| (Some(write), read))?,
        Stdin::Empty => (None, std::fs::File::open("/dev/null")?.into()),
    };
    Ok((Ours::Pipes { stdin: input, stdout, stderr }, vec![theirs, out, err]))
}

impl Begun {
    /// Goes on with it in the background, for as long as it runs.
    pub(super) fn follow(self) -> io::Result<Exec> {
        self.socket.set_nonblocking(true)?;
        let socket = tokio::net::UnixStream::from_std(self.socket)?;
        let (sender, output) = mpsc::channel(PIECES);
        let mut pumps = Vec::new();
        let mut pump = |from, stream| {
            pumps.push(tokio::spawn(pump(from, stream, sender.clone())).abort_handle());
        };
        let mut input: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>> = None;
        let mut screen: Option<Arc<dyn Terminal>> = None;
        match self.ours {
            Ours::Nothing => {}
            Ours::Pipes { stdin, stdout, stderr } => {
                pump(pipe::Receiver::from_owned_fd(stdout)?, LogStream::Stdout);
                pump(pipe::Receiver::from_owned_fd(stderr)?, LogStream::Stderr);
                if let Some(stdin) = stdin {
                    input = Some(Box::new(pipe::Sender::from_owned_fd(stdin)?));
                }
            }
            Ours::Terminal(other) => {
                rustix::io::ioctl_fionbio(&other, true)?;
                // A terminal is read, written and waited for as a pipe is.
                pump(pipe::Receiver::from_owned_fd_unchecked(other.try_clone()?)?, LogStream::Stdout);
                input = Some(Box::new(pipe::Sender::from_owned_fd_unchecked(other.try_clone()?)?));
                screen = Some(Arc::new(Screen(other)));
            }
        }
        let (alive, gone) = oneshot::channel();
        let (ends, ended) = oneshot::channel();
        tokio::spawn(watch(Watched { shim: self.shim, socket, lonely: self.lonely, gone, ends, pumps }));
        Ok(Exec { pid: self.pid, input, output, terminal: screen, ended, _alive: alive })
    }
}

struct Screen(OwnedFd);

impl Terminal for Screen {
    fn resize(&self, size: TerminalSize) -> io::Result<()> {
        terminal::resize(&self.0, size)
    }
}

/// Carries what is written to whoever reads it.
async fn pump(mut from: pipe::Receiver, stream: LogStream, to: mpsc::Sender<(LogStream, Vec<u8>)>) {
    let mut piece = vec![0; PIECE];
    // An error is how a terminal says that its last program has gone.
    while let Ok(read) = from.read(&mut piece).await
        && read > 0
    {
        if to.send((stream, piece[..read].to_vec())).await.is_err() {
            return;
        }
    }
}

struct Watched {
    shim: Child,
    socket: tokio::net::UnixStream,
    lonely: bool,
    gone: oneshot::Receiver<()>,
    ends: oneshot::Sender<Option<i32>>,
    pumps: Vec<AbortHandle>,
}

/// Hears of the program's end, and has it killed when nobody is interested any more.
async fn watch(mut watched: Watched) {
    let (reads, mut writes) = watched.socket.split();
    let mut end = std::pin::pin!(end(reads));
    let code = if watched.lonely {
        end.await
    } else {
        tokio::select! {
            code = &mut end => code,
            _ = watched.gone => {
                // The shim kills it then, and says how it ended all the same.
                let _ = writes.shutdown().await;
                end.await
            }
        }
    };
    let _ = watched.ends.send(code);
    // An error means that somebody else has waited for it, which is as good.
    let _ = watched.shim.wait().await;
    sleep(AFTERWARDS).await;
    watched.pumps.iter().for_each(AbortHandle::abort);
}

/// What the shim says last.
async fn end(mut socket: tokio::net::unix::ReadHalf<'_>) -> Option<i32> {
    let mut length = [0; 8];
    socket.read_exact(&mut length).await.ok()?;
    let mut body = Vec::new();
    socket.take(u64::from_ne_bytes(length)).read_to_end(&mut body).await.ok()?;
    match serde_json::from_slice(&body) {
        Ok(ExecReport::Ended(code)) => code,
        _ => None,
    }
}
