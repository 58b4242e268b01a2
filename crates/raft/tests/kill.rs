//! A member is killed with `kill -9` again and again while it commits; nothing that it acknowledged is ever missing.
//!
//! The member is this same program, started with `voter <directory>`. That is why there is no test harness: the few words
//! that test runners speak are answered here.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use skep_ca::{NodeCredentials, NodeKeys, PeerIdentity, RootCa, Roots};
use skep_model::{Availability, ClusterId, Meta, Node, NodeId, NodeSpec, NodeState, NodeStatus, Role, Timestamp};
use skep_raft::{Leadership, Raft, RaftConfig};
use skep_rpc::NodeIdentity;
use skep_store::{Change, Store, Writer};

const NAME: &str = "kill_9_takes_nothing_back_that_was_acknowledged";
const ROUNDS: u64 = 12;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, dir] = &args[..]
        && word == "voter"
    {
        return voter(Path::new(dir));
    }
    let has = |word: &str| args.iter().any(|arg| arg == word);
    if has("--list") {
        if !has("--ignored") {
            println!("{NAME}: test");
        }
        return;
    }
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    if filters.is_empty() || filters.iter().any(|filter| NAME.contains(filter.as_str())) {
        kill_again_and_again();
        println!("test {NAME} ... ok");
    }
}

/// Kills when it is dropped, so that a failing test leaves nothing behind.
struct Voter(Child);

impl Voter {
    fn start(dir: &Path) -> Self {
        let own = std::env::current_exe().unwrap();
        Self(Command::new(own).arg("voter").arg(dir).stdout(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Voter {
    fn drop(&mut self) {
        // On Unix this is SIGKILL. An error says that it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn kill_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let mut voter = Voter::start(dir.path());
        let mut lines = BufReader::new(voter.0.stdout.take().unwrap()).lines();
        let known: Vec<String> = lines.by_ref().map(Result::unwrap).take_while(|line| line != "go").collect();
        for id in &acknowledged {
            assert!(known.contains(id), "round {round}: {id} was acknowledged and is gone");
        }
        // A moment of another length each time, so that the axe falls between other steps.
        let end = Instant::now() + Duration::from_millis(20 + 13 * round);
        let before = acknowledged.len();
        while Instant::now() < end || acknowledged.len() == before {
            acknowledged.push(lines.next().expect("it should go on").unwrap());
        }
        drop(voter);
        // What it said before the axe fell was acknowledged too; a line cut in the middle was not.
        let rest = lines.map_while(Result::ok).filter(|line| line.parse::<NodeId>().is_ok());
        acknowledged.extend(rest);
    }
    assert!(acknowledged.len() >= usize::try_from(ROUNDS).unwrap());
    println!("{} acknowledged proposals survived {ROUNDS} kills", acknowledged.len());
}

/// Says which nodes it knows, then `go`, then each node that it has added, until it is killed.
#[tokio::main]
async fn voter(dir: &Path) {
    let store = Store::default();
    let addr = "127.0.0.1:1".parse().unwrap();
    let config = RaftConfig { dir: dir.to_owned(), raft_id: 7, addr, identity: identity(), unlock_key: None };
    let raft = Raft::start(config, store.clone()).await.unwrap();
    if !raft.is_initialized().await.unwrap() {
        raft.initialize().await.unwrap();
    }
    raft.leadership().wait_for(Leadership::is_leader).await.unwrap();
    let mut out = std::io::stdout();
    for id in store.view(|tables| tables.all::<Node>().map(|node| node.id.clone()).collect::<Vec<_>>()) {
        writeln!(out, "{id}").unwrap();
    }
    writeln!(out, "go").unwrap();
    let writer = Writer::new(store, std::sync::Arc::new(raft));
    loop {
        let node = node();
        let id = node.id.clone();
        writer.update(|_| Ok::<_, &str>(((), vec![Change::from(node)]))).await.unwrap();
        // One write, so that a line is whole or cut, never mixed.
        out.write_all(format!("{id}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

/// It calls nobody: any identity will do.
fn identity() -> NodeIdentity {
    let root = RootCa::generate(Timestamp::now()).unwrap();
    let keys = NodeKeys::generate().unwrap();
    let identity = PeerIdentity { cluster: ClusterId::random(), node: NodeId::random(), role: Role::Manager };
    let chain = root.sign_own(&keys, &identity, Timestamp::now()).unwrap();
    let roots = Roots::new(vec![root.certificate().clone()]).unwrap();
    NodeIdentity::new(NodeCredentials::new(keys, &chain, roots).unwrap()).unwrap()
}

fn node() -> Node {
    Node {
        id: NodeId::random(),
        meta: Meta::new(Timestamp::UNIX_EPOCH),
        spec: NodeSpec { name: None, labels: [].into(), role: Role::Worker, availability: Availability::Active },
        description: None,
        status: NodeStatus {
            state: NodeState::Unknown,
            message: String::new(),
            addr: None,
            port_conflicts: Vec::new(),
            machine_answers: false,
        },
        manager: None,
        overlay_addr: None,
        credential: String::new(),
    }
}
