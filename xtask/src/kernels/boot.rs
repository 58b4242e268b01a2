//! The virtual machine.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Kernel;
use super::report::Outcome;

/// A panic ends the machine, and so does its end of work; it is never started again.
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off init_on_alloc=0 rcupdate.rcu_expedited=1 no5lvl rdinit=/init";

/// Dies with its owner, whatever happens.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the kernel and shows what it reports until it is done or its time is over.
pub(super) fn boot(kernel: &Kernel, initramfs: &Path, scratch: &Path, limit: Duration) -> Result<Outcome> {
    let console = scratch.join(format!("{}.console", kernel.release));
    println!("booting {} (the kernel's messages: {})", kernel.release, console.display());
    let began = Instant::now();
    let mut machine = Machine(start(kernel, initramfs, &console)?);
    let reports = BufReader::new(machine.0.stdout.take().context("the machine's serial port")?);
    let (send, lines) = channel();
    thread::spawn(move || {
        // Ends with the machine.
        for line in reports.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if send.send(line).is_err() {
                return;
            }
        }
    });
    let mut outcome = Outcome::default();
    loop {
        match lines.recv_timeout(limit.saturating_sub(began.elapsed())) {
            Ok(line) => {
                if let Some(shown) = outcome.line(&line) {
                    println!("{shown}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                println!("the machine's {} s are over", limit.as_secs());
                break;
            }
        }
    }
    println!("{} ran for {} s", kernel.release, began.elapsed().as_secs());
    if !outcome.good() {
        show_end(&console);
    }
    Ok(outcome)
}

fn start(kernel: &Kernel, initramfs: &Path, console: &Path) -> Result<Child> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    // In software: slow, but the same everywhere. A `/dev/kvm` inside of a virtual machine may be there and not work.
    qemu.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]);
    qemu.args(["-smp", "2", "-m", "2G", "-append", COMMAND_LINE]).arg("-kernel").arg(&kernel.image);
    qemu.arg("-initrd").arg(initramfs).arg("-serial").arg(format!("file:{}", console.display()));
    qemu.args(["-serial", "stdio", "-monitor", "none"]);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("QEMU cannot be run")
}

/// The kernel's last messages, where it did not come to a good end.
fn show_end(console: &Path) {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(40)..] {
        println!("    console | {line}");
    }
}
