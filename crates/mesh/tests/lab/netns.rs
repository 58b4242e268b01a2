//! A network namespace of a test.

use std::fs::{self, File};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns};

/// A named namespace, removed when dropped.
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes one; the name gets the process id.
    pub fn new(name: &str) -> Self {
        let name = format!("skm{}-{name}", std::process::id());
        command("ip", &["netns", "add", &name]);
        let ns = Self { name };
        ns.ip("link set lo up");
        ns.bridge_frames_alone();
        ns
    }

    /// A bridge is a switch here. On a machine that has `br_netfilter` loaded, its frames would go through the IP hooks as well, and each
    /// path would pay for that as often as it crosses one.
    fn bridge_frames_alone(&self) {
        let hooks = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];
        for hook in hooks {
            if self.run(|| fs::exists(format!("/proc/sys/{hook}"))).unwrap() {
                self.sysctl(hook, "0");
            }
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` with these words inside.
    pub fn ip(&self, words: &str) -> String {
        let mut all = vec!["-n", &self.name];
        all.extend(words.split_whitespace());
        command("ip", &all)
    }

    /// Runs a program inside.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).args(words.split_whitespace());
        command
    }

    /// Runs a closure on a thread inside, and returns what it returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = || {
                self.enter();
                work()
            };
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread inside that lives as long as it likes.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let name = self.name.clone();
        let (ready, is_ready) = std::sync::mpsc::channel();
        thread::spawn(move || {
            enter(&name);
            ready.send(()).unwrap();
            work();
        });
        is_ready.recv().unwrap();
    }

    pub fn sysctl(&self, key: &str, value: &str) {
        self.run(|| fs::write(format!("/proc/sys/{key}"), value)).unwrap();
    }

    pub fn ifindex(&self, device: &str) -> u32 {
        self.run(|| nix::net::if_::if_nametoindex(device)).unwrap()
    }

    pub fn mac(&self, device: &str) -> [u8; 6] {
        let text = self.ip(&format!("-br link show {device}"));
        let mac = text.split_whitespace().nth(2).unwrap();
        let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }

    fn enter(&self) {
        enter(&self.name);
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn enter(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}

fn command(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
