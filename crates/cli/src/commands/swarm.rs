//! `swarm`: the cluster as a whole.

mod ca;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::shared::segment;
use crate::session::Session;
use crate::values::parse_duration;
use crate::view::View as _;

/// The verbs of a swarm.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a swarm with this node as its first manager
    Init(InitFlags),
    /// Join a swarm
    Join(JoinFlags),
    /// Show, or change, the token that lets nodes join
    JoinToken(JoinTokenFlags),
    /// Leave the swarm
    Leave(LeaveFlags),
    /// Show, or replace, the root of the nodes' certificates
    Ca(ca::CaFlags),
    /// Change the swarm's settings
    Update(UpdateFlags),
    /// Open a manager whose keys are locked away; the key is read from standard input
    Unlock,
    /// Show, or change, the key that opens managers
    UnlockKey(UnlockKeyFlags),
}

/// Where a node listens, and where others find it.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The address that other nodes use: address or interface, and a port
    #[arg(long, default_value = "")]
    advertise_addr: String,
    /// The address to listen on; 0.0.0.0 means every one, IPv6 ones too
    #[arg(long, default_value = "0.0.0.0:2377")]
    listen_addr: String,
    /// The address or interface for the services' traffic
    #[arg(long, default_value = "")]
    data_path_addr: String,
    /// Whether the node takes tasks: active, pause or drain
    #[arg(long, default_value = "active", value_parser = ["active", "pause", "drain"])]
    availability: String,
}

/// Flags of `swarm init`.
#[derive(Debug, Args)]
pub struct InitFlags {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    settings: Settings,
    /// The UDP port for the services' traffic; 0 means 4789
    #[arg(long, default_value_t = 0)]
    data_path_port: u32,
    /// A range that networks get their subnets from, in CIDR
    #[arg(long)]
    default_addr_pool: Vec<String>,
    /// The prefix length of each network's subnet
    #[arg(long, default_value_t = 24)]
    default_addr_pool_mask_length: u32,
    /// Let managers start with an unlock key only
    #[arg(long)]
    autolock: bool,
    /// Make a new swarm of one out of what this node knows, after a majority is lost for good
    #[arg(long)]
    force_new_cluster: bool,
}

/// The swarm's settings.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// How many old tasks to keep per slot
    #[arg(long)]
    task_history_limit: Option<i64>,
    /// How often nodes report: a duration
    #[arg(long, value_parser = parse_duration)]
    dispatcher_heartbeat: Option<i64>,
    /// How long a node's certificate is valid: a duration
    #[arg(long, value_parser = parse_duration)]
    cert_expiry: Option<i64>,
    /// How many log entries between snapshots
    #[arg(long)]
    snapshot_interval: Option<u64>,
    /// How many older snapshots to keep
    #[arg(long)]
    max_snapshots: Option<u64>,
}

/// Flags of `swarm update`.
#[derive(Debug, Args)]
pub struct UpdateFlags {
    #[command(flatten)]
    settings: Settings,
    /// Whether managers need an unlock key to start
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    autolock: Option<bool>,
}

/// Flags of `swarm unlock-key`.
#[derive(Debug, Args)]
pub struct UnlockKeyFlags {
    /// Make a new key; the old one stops to work
    #[arg(long)]
    rotate: bool,
    /// Show only the key
    #[arg(short, long)]
    quiet: bool,
}

/// Flags of `swarm join`.
#[derive(Debug, Args)]
pub struct JoinFlags {
    #[command(flatten)]
    place: Place,
    /// The token that `swarm join-token` shows
    #[arg(long)]
    token: String,
    /// A manager of the swarm: address and port
    remote: String,
}

/// What a node joins as.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Role {
    /// Runs tasks
    Worker,
    /// Decides, too
    Manager,
}

/// Flags of `swarm join-token`.
#[derive(Debug, Args)]
pub struct JoinTokenFlags {
    /// Make a new token; the old one stops to work
    #[arg(long)]
    rotate: bool,
    /// Show only the token
    #[arg(short, long)]
    quiet: bool,
    /// What nodes join as
    role: Role,
}

/// Flags of `swarm leave`.
#[derive(Debug, Args)]
pub struct LeaveFlags {
    /// Leave although this is a manager
    #[arg(short, long)]
    force: bool,
}

/// What is made anew beside an update.
#[derive(Debug, Clone, Copy)]
enum Rotated {
    Token(Role),
    UnlockKey,
}

/// Carries out a verb.
pub(super) async fn run(session: &mut Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(flags) => init(session, flags).await,
        Command::Join(flags) => join(session, flags).await,
        Command::JoinToken(flags) => join_token(session, &flags).await,
        Command::Leave(flags) => {
            let query = if flags.force { vec![("force", "1".to_owned())] } else { Vec::new() };
            session.client.post("/swarm/leave", &query, &Value::Null).await?;
            Ok(session.line("Node left the swarm.")?)
        }
        Command::Ca(flags) => ca::run(session, flags).await,
        Command::Update(flags) => {
            let swarm = session.client.get("/swarm", &[]).await?;
            let mut spec = swarm["Spec"].clone();
            flags.settings.apply(&mut spec);
            if let Some(autolock) = flags.autolock {
                spec["EncryptionConfig"]["AutoLockManagers"] = autolock.into();
            }
            update(session, &swarm, &spec, None).await?;
            session.line("Swarm updated.")?;
            if flags.autolock == Some(true) { print_unlock_key(session).await } else { Ok(()) }
        }
        Command::Unlock => {
            let key = std::io::read_to_string(std::io::stdin()).context("cannot read the unlock key")?;
            let body = json!({ "UnlockKey": key.trim() });
            session.client.post("/swarm/unlock", &[], &body).await?;
            Ok(())
        }
        Command::UnlockKey(flags) => unlock_key(session, &flags).await,
    }
}

async fn unlock_key(session: &mut Session, flags: &UnlockKeyFlags) -> anyhow::Result<()> {
    if flags.rotate {
        let swarm = session.client.get("/swarm", &[]).await?;
        update(session, &swarm, &swarm["Spec"], Some(Rotated::UnlockKey)).await?;
        if !flags.quiet {
            session.line("Successfully rotated manager unlock key.\n")?;
        }
    }
    if !flags.quiet {
        return print_unlock_key(session).await;
    }
    let key = known_unlock_key(session).await?;
    Ok(session.line(key)?)
}

async fn known_unlock_key(session: &Session) -> anyhow::Result<String> {
    let answer = session.client.get("/swarm/unlockkey", &[]).await?;
    match answer.text("/UnlockKey") {
        "" => anyhow::bail!("no unlock key is set: `skep swarm update --autolock` locks the swarm"),
        key => Ok(key.to_owned()),
    }
}

async fn print_unlock_key(session: &mut Session) -> anyhow::Result<()> {
    let key = known_unlock_key(session).await?;
    Ok(session.line(format!(
        "To unlock a swarm manager after it restarts, run the `skep swarm unlock` command and provide the following key:\n\n    {key}\n\nKeep it in a password manager: without it no manager can be restarted."
    ))?)
}

impl Settings {
    fn apply(&self, spec: &mut Value) {
        let fields = [
            ("Orchestration", "TaskHistoryRetentionLimit", self.task_history_limit.map(Value::from)),
            ("Dispatcher", "HeartbeatPeriod", self.dispatcher_heartbeat.map(Value::from)),
            ("CAConfig", "NodeCertExpiry", self.cert_expiry.map(Value::from)),
            ("Raft", "SnapshotInterval", self.snapshot_interval.map(Value::from)),
            ("Raft", "KeepOldSnapshots", self.max_snapshots.map(Value::from)),
        ];
        for (group, field, value) in fields {
            if let Some(value) = value {
                spec[group][field] = value;
            }
        }
    }
}

async fn init(session: &mut Session, flags: InitFlags) -> anyhow::Result<()> {
    let mut spec = json!({});
    flags.settings.apply(&mut spec);
    let body = json!({
        "ListenAddr": flags.place.listen_addr, "AdvertiseAddr": flags.place.advertise_addr,
        "DataPathAddr": flags.place.data_path_addr, "DataPathPort": flags.data_path_port,
        "ForceNewCluster": flags.force_new_cluster, "Spec": spec, "AutoLockManagers": flags.autolock,
        "Availability": flags.place.availability, "DefaultAddrPool": flags.default_addr_pool,
        "SubnetSize": flags.default_addr_pool_mask_length,
    });
    let id = session.client.post("/swarm/init", &[], &body).await?;
    let id = id.as_str().unwrap_or_default();
    session.line(format!("Swarm initialized: current node ({id}) is now a manager.\n"))?;
    let swarm = session.client.get("/swarm", &[]).await?;
    let node = session.client.get(&format!("/nodes/{}", segment(id)), &[]).await?;
    print_join(session, "worker", swarm.text("/JoinTokens/Worker"), node.text("/ManagerStatus/Addr"))?;
    session.line("To add a manager to this swarm, run 'skep swarm join-token manager' and follow the instructions.")?;
    if flags.autolock { print_unlock_key(session).await } else { Ok(()) }
}

fn print_join(session: &mut Session, role: &str, token: &str, address: &str) -> std::io::Result<()> {
    session.line(format!(
        "To add a {role} to this swarm, run the following command:\n\n    skep swarm join --token {token} {address}\n"
    ))
}

async fn join(session: &mut Session, flags: JoinFlags) -> anyhow::Result<()> {
    let body = json!({
        "ListenAddr": flags.place.listen_addr, "AdvertiseAddr": flags.place.advertise_addr, "DataPathAddr": flags.place.data_path_addr,
        "RemoteAddrs": [flags.remote], "JoinToken": flags.token, "Availability": flags.place.availability,
    });
    session.client.post("/swarm/join", &[], &body).await?;
    let info = session.client.get("/info", &[]).await?;
    let role = if info.yes("/Swarm/ControlAvailable") { "manager" } else { "worker" };
    Ok(session.line(format!("This node joined a swarm as a {role}."))?)
}

async fn join_token(session: &mut Session, flags: &JoinTokenFlags) -> anyhow::Result<()> {
    let role = match flags.role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    };
    if flags.rotate {
        let swarm = session.client.get("/swarm", &[]).await?;
        update(session, &swarm, &swarm["Spec"], Some(Rotated::Token(flags.role))).await?;
        if !flags.quiet {
            session.line(format!("Successfully rotated {role} join token.\n"))?;
        }
    }
    let swarm = session.client.get("/swarm", &[]).await?;
    let token = match flags.role {
        Role::Worker => swarm.text("/JoinTokens/Worker"),
        Role::Manager => swarm.text("/JoinTokens/Manager"),
    };
    if flags.quiet {
        return Ok(session.line(token)?);
    }
    let info = session.client.get("/info", &[]).await?;
    let node = session.client.get(&format!("/nodes/{}", segment(info.text("/Swarm/NodeID"))), &[]).await?;
    Ok(print_join(session, role, token, node.text("/ManagerStatus/Addr"))?)
}

async fn update(session: &Session, swarm: &Value, spec: &Value, rotate: Option<Rotated>) -> anyhow::Result<()> {
    let query = [
        ("version", swarm.int("/Version/Index").to_string()),
        ("rotateWorkerToken", matches!(rotate, Some(Rotated::Token(Role::Worker))).to_string()),
        ("rotateManagerToken", matches!(rotate, Some(Rotated::Token(Role::Manager))).to_string()),
        ("rotateManagerUnlockKey", matches!(rotate, Some(Rotated::UnlockKey)).to_string()),
    ];
    session.client.post("/swarm/update", &query, spec).await?;
    Ok(())
}
