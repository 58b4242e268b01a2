//! A resolver in a task's namespace, asked by programs that are not ours.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use skep_dns::{Asker, Counters, Forwarder, Resolver, Sockets, Unknown};
use skep_network::Namespace;
use tokio::sync::watch;

use crate::world::{World, endpoint};
use skep_model::EndpointState;

/// A namespace with a resolver that asks nobody else.
struct Task {
    dir: tempfile::TempDir,
    namespace: Namespace,
    resolver: Option<Resolver>,
    scope: watch::Sender<skep_dns::Scope>,
}

impl Task {
    fn new(world: &World) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "tests of the kernel make namespaces: run them as root");
        let dir = tempfile::tempdir().unwrap();
        let namespace = Namespace::create(&dir.path().join("task")).unwrap();
        let sockets = Sockets::inside(namespace.path()).unwrap();
        let (scope, seen) = watch::channel(world.scope(&['n'], None));
        let unknown = Unknown::Forward(Arc::new(Forwarder::given(Vec::new())));
        let resolver =
            Resolver::start(sockets, Asker { scope: seen, unknown, counters: Arc::new(Counters::default()) });
        fs::write(dir.path().join("resolv.conf"), "nameserver 127.0.0.11\noptions ndots:0\n").unwrap();
        Self { dir, namespace, resolver: Some(resolver.unwrap()), scope }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Exit code and output of a command within, whose /etc/resolv.conf is a task's.
    async fn run(&self, script: &str) -> (i32, String) {
        let mut command = Command::new("unshare");
        let file = self.path("resolv.conf");
        // The C library asks for no address of a family of which there is none but that of the loopback device.
        let own = "ip addr replace 10.1.0.11/32 dev lo";
        let script = format!("mount --bind {} /etc/resolv.conf && {own} && {script}", file.display());
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        self.namespace.enter_on_exec(&mut command).unwrap();
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code().unwrap(), said.concat())
    }

    async fn lines(&self, script: &str) -> Vec<String> {
        let (code, said) = self.run(script).await;
        assert_eq!(code, 0, "{script}: {said}");
        let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        drop(self.resolver.take());
        Namespace::delete(self.namespace.path()).unwrap();
    }
}

/// Enough tasks that they fit neither 512 bytes nor 1232.
fn large() -> World {
    let mut world = World::new();
    for n in 0..200u8 {
        let (mut key, located) = endpoint('n', ('x', 'a', &[]), [10, 1, 0, 30 + n], EndpointState::Ready);
        key.task = format!("{n:025}").parse().unwrap();
        world.endpoints.insert(key, located);
    }
    world
}

#[tokio::test]
async fn dig_and_the_c_library_and_busybox_find_names() {
    let task = Task::new(&large());
    assert_eq!(task.lines("dig +short web").await, ["10.1.0.2"]);
    assert_eq!(task.lines("dig +short +tcp WEB.app").await, ["10.1.0.2"]);
    assert_eq!(task.lines("dig +short tasks.web").await, ["10.1.0.11", "10.1.0.12"]);
    assert_eq!(task.lines("dig +short -x 10.1.0.11").await, ["web.1.bbbbbbbbbbbbbbbbbbbbbbbbb.app."]);
    assert_eq!(task.lines("dig +short SRV _80._tcp.web").await, ["0 1 80 web.app."]);
    let (_, said) = task.run("dig web AAAA").await;
    assert!(said.contains("status: NOERROR") && said.contains("ANSWER: 0") && !said.contains("WARNING"), "{said}");
    let (_, said) = task.run("dig example.org").await;
    assert!(said.contains("status: SERVFAIL"), "{said}");
    // More than fits a datagram: dig asks by TCP on its own, with EDNS and without.
    for how in ["", "+noedns"] {
        assert_eq!(task.lines(&format!("dig +short {how} tasks.api")).await.len(), 201);
    }
    let (_, said) = task.run("dig +ignore +noedns tasks.api").await;
    assert!(said.contains("flags: qr tc rd ra"), "{said}");

    assert_eq!(task.lines("getent ahostsv4 web | cut -d' ' -f1 | sort -u").await, ["10.1.0.2"]);
    assert_eq!(task.lines("getent ahosts tasks.web | cut -d' ' -f1 | sort -u").await, ["10.1.0.11", "10.1.0.12"]);
    assert_eq!(
        task.lines("getent hosts 10.1.0.12 | tr -s ' '").await,
        ["10.1.0.12 web.2.ccccccccccccccccccccccccc.app"]
    );
    assert_eq!(task.lines("getent ahostsv4 tasks.api | cut -d' ' -f1 | sort -u").await.len(), 201);
    assert_eq!(task.run("getent hosts nosuch").await.0, 2);
    let (code, said) = task.run("busybox nslookup web").await;
    assert!(code == 0 && said.contains("Address: 10.1.0.2"), "{said}");
    assert!(task.run("busybox nslookup tasks.web").await.1.contains("10.1.0.12"));
}

#[tokio::test]
async fn what_becomes_ready_is_in_the_next_answer_and_a_new_daemon_answers_too() {
    let mut world = World::new();
    let mut task = Task::new(&world);
    assert_eq!(task.lines("dig +short api").await, ["10.1.0.21"]);
    world.endpoints.values_mut().for_each(|located| Arc::make_mut(&mut located.record).state = EndpointState::Ready);
    task.scope.send_replace(world.scope(&['n'], None));
    assert_eq!(task.lines("dig +short api").await, ["10.1.0.21", "10.1.0.22"]);

    task.resolver.take().unwrap().stop().await;
    let began = std::time::Instant::now();
    assert_ne!(task.run("getent hosts web").await.0, 0);
    assert!(began.elapsed().as_secs() < 5, "refused at once");
    let sockets = Sockets::inside(task.namespace.path()).unwrap();
    let asker = Asker { scope: task.scope.subscribe(), unknown: Unknown::Deny, counters: Arc::default() };
    task.resolver = Some(Resolver::start(sockets, asker).unwrap());
    assert_eq!(task.lines("dig +short web").await, ["10.1.0.2"]);
}
