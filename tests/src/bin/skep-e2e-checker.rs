//! The server of the stories: `skep-e2e-checker [PORT [SECONDS]]` listens on the port (80), so many seconds after its start (0), and
//! checks every byte that it is sent. Asked to stop (SIGTERM), it accepts nothing any more, answers who still asks, tells them that it was the
//! last time, closes what nobody uses, and ends.

#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{Backlog, Shutdown, listen, shutdown};
use skep_e2e::wire::{ANSWER, ASK, Answer, Ask, Then, body};

/// How often a connection that is silent looks whether the server stops.
const LOOK: Duration = Duration::from_millis(200);
/// How long a server that stops waits for the next question on a connection: longer than clients are silent that ask at intervals.
const FAREWELL: Duration = Duration::from_secs(1);
/// Who stops in the middle of a question is given up.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u16| args.next().map_or(Ok(default), |text| text.parse());
    let (Ok(port), Ok(seconds)) = (number(80), number(0)) else {
        eprintln!("usage: skep-e2e-checker [PORT [SECONDS]]");
        return ExitCode::FAILURE;
    };
    // Blocked before there are threads, so that it is for `wait` alone. A first process has no other way to hear it.
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    term.thread_block().expect("a mask is a mask");
    let (ready, listening) = mpsc::channel();
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(seconds.into()));
        let server = Arc::new(Server::listen(port).expect("the port is free"));
        let _ = ready.send(server.clone());
        server.accept();
    });
    term.wait().expect("a mask is a mask");
    if let Ok(server) = listening.try_recv() {
        server.stop();
    }
    ExitCode::SUCCESS
}

struct Server {
    listener: TcpListener,
    task: [u8; 12],
    stopping: AtomicBool,
    /// The threads of all connections.
    open: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Server {
    fn listen(port: u16) -> io::Result<Self> {
        let mut task = [b' '; 12];
        let name = nix::unistd::gethostname()?;
        task.iter_mut().zip(name.to_string_lossy().bytes()).for_each(|(to, from)| *to = from);
        let any: [SocketAddr; 2] = [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
        let listener = TcpListener::bind(&any[..])?;
        // A server that is held up for a second on a busy machine must not have connections dropped for that.
        listen(&listener, Backlog::MAXCONN)?;
        Ok(Self { listener, task, stopping: AtomicBool::new(false), open: Mutex::default() })
    }

    fn accept(self: Arc<Self>) {
        while let Ok((stream, client)) = self.listener.accept() {
            let server = self.clone();
            let thread = thread::spawn(move || {
                if let Err(e) = server.serve(stream, client) {
                    println!("{client}: {e}");
                }
            });
            let mut open = self.open.lock().expect("no thread panics with it");
            open.retain(|thread| !thread.is_finished());
            open.push(thread);
        }
    }

    /// Accepts nothing any more, and returns when the last connection is closed.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        let open = std::mem::take(&mut *self.open.lock().expect("no thread panics with it"));
        for thread in open {
            let _ = thread.join();
        }
    }

    fn serve(&self, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        while self.asked(&stream)? {
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut head = [0; ASK];
            stream.read_exact(&mut head)?;
            let ask = Ask::from_bytes(&head).ok_or_else(|| io::Error::other("not a question"))?;
            let mut sent = vec![0; ask.up as usize];
            stream.read_exact(&mut sent)?;
            let then = if self.stopping.load(Ordering::Relaxed) { Then::Close } else { ask.then };
            let whole = sent == body(ask.seed, ask.up);
            let answer = Answer { whole, then, client: client.ip().to_canonical(), task: self.task };
            let mut bytes = Vec::with_capacity(ANSWER + ask.down as usize);
            bytes.extend_from_slice(&answer.to_bytes());
            bytes.extend_from_slice(&body(!ask.seed, ask.down));
            stream.write_all(&bytes)?;
            if then == Then::Close {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for the next question. `false`: the client has closed, or nobody asks while the server stops.
    fn asked(&self, stream: &TcpStream) -> io::Result<bool> {
        stream.set_read_timeout(Some(LOOK))?;
        let mut stopping_since = None;
        loop {
            match stream.peek(&mut [0]) {
                Ok(bytes) => return Ok(bytes > 0),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(e),
            }
            if self.stopping.load(Ordering::Relaxed)
                && stopping_since.get_or_insert_with(Instant::now).elapsed() > FAREWELL
            {
                return Ok(false);
            }
        }
    }
}
