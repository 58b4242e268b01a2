//! `node`: the machines of the swarm.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::shared::{self, InspectFlags, ListFlags, segment};
use super::tasks::{self, TaskFlags};
use crate::output::{Listing, Row, memory, title};
use crate::session::Session;
use crate::values::key_value;
use crate::view::View as _;

/// The verbs of nodes.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List nodes
    Ls(ListFlags),
    /// Show nodes, as JSON or for people
    Inspect(InspectFlags),
    /// List the tasks of nodes
    Ps {
        #[command(flatten)]
        flags: TaskFlags,
        /// Nodes; otherwise the one we talk to
        #[arg(default_value = "self")]
        nodes: Vec<String>,
    },
    /// Change a node
    Update(UpdateFlags),
    /// Remove nodes that are gone
    Rm {
        /// Remove although it is not down
        #[arg(short, long)]
        force: bool,
        /// Nodes
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Make workers managers
    Promote {
        /// Nodes
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Make managers workers
    Demote {
        /// Nodes
        #[arg(required = true)]
        nodes: Vec<String>,
    },
}

/// Flags of `node update`.
#[derive(Debug, Args)]
pub struct UpdateFlags {
    /// Add or change a label: key=value
    #[arg(long)]
    label_add: Vec<String>,
    /// Remove a label by its key
    #[arg(long)]
    label_rm: Vec<String>,
    /// Whether the node takes tasks
    #[arg(long, value_parser = ["active", "pause", "drain"])]
    availability: Option<String>,
    /// What the node is
    #[arg(long, value_parser = ["worker", "manager"])]
    role: Option<String>,
    /// The node
    node: String,
}

/// Carries out a verb.
pub(super) async fn run(session: &mut Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ls(flags) => list(session, &flags).await,
        Command::Inspect(mut flags) => {
            for name in &mut flags.names {
                if name == "self" {
                    *name = tasks::node_id(session, "self").await?;
                }
            }
            shared::inspect(session, &flags, |name| format!("/nodes/{}", segment(name)), &[], pretty).await
        }
        Command::Ps { flags, nodes } => {
            let mut filter = Vec::new();
            for node in nodes {
                filter.push(format!("node={}", tasks::node_id(session, &node).await?));
            }
            tasks::list(session, &flags, filter).await
        }
        Command::Update(flags) => {
            change(session, &flags.node, |spec| edit(spec, &flags)).await?;
            Ok(session.line(&flags.node)?)
        }
        Command::Rm { force, nodes } => {
            let query = if force { vec![("force", "1".to_owned())] } else { Vec::new() };
            for node in nodes {
                match session.client.delete(&format!("/nodes/{}", segment(&node)), &query).await {
                    Ok(_) => session.line(node)?,
                    Err(error) => session.report(&error),
                }
            }
            Ok(())
        }
        Command::Promote { nodes } => roles(session, nodes, "manager", "promoted to a manager in the swarm").await,
        Command::Demote { nodes } => roles(session, nodes, "worker", "demoted in the swarm").await,
    }
}

async fn change(session: &Session, name: &str, edit: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
    let id = tasks::node_id(session, name).await?;
    let node = session.client.get(&format!("/nodes/{}", segment(&id)), &[]).await?;
    let mut spec = node["Spec"].clone();
    edit(&mut spec);
    let version = [("version", node.int("/Version/Index").to_string())];
    session.client.post(&format!("/nodes/{}/update", segment(&id)), &version, &spec).await?;
    Ok(())
}

fn edit(spec: &mut Value, flags: &UpdateFlags) {
    if let Some(availability) = &flags.availability {
        spec["Availability"] = json!(availability);
    }
    if let Some(role) = &flags.role {
        spec["Role"] = json!(role);
    }
    let mut labels = spec["Labels"].as_object().cloned().unwrap_or_default();
    labels.retain(|key, _| !flags.label_rm.contains(key));
    labels.extend(flags.label_add.iter().map(|l| key_value(l)).map(|(k, v)| (k, json!(v))));
    spec["Labels"] = Value::Object(labels);
}

async fn roles(session: &mut Session, nodes: Vec<String>, role: &str, done: &str) -> anyhow::Result<()> {
    for node in nodes {
        match change(session, &node, |spec| spec["Role"] = json!(role)).await {
            Ok(()) => session.line(format!("Node {node} {done}."))?,
            Err(error) => session.report(&error),
        }
    }
    Ok(())
}

async fn list(session: &mut Session, flags: &ListFlags) -> anyhow::Result<()> {
    let nodes = session.client.get("/nodes", &flags.query()?).await?;
    let info = session.client.get("/info", &[]).await?;
    flags.show(session, &table(nodes.list(""), info.text("/Swarm/NodeID"), flags.format.is_none()))
}

/// The table of nodes; a star marks the one we talk to.
pub(super) fn table(nodes: &[Value], own: &str, starred: bool) -> Listing {
    let mut rows: Vec<Row> = nodes.iter().map(|n| row(n, own, starred)).collect();
    rows.sort_by(|a, b| a[1].1.cmp(&b[1].1));
    Listing {
        columns: &[
            ("IDStar", "ID"),
            ("Hostname", "HOSTNAME"),
            ("Status", "STATUS"),
            ("Availability", "AVAILABILITY"),
            ("ManagerStatus", "MANAGER STATUS"),
            ("EngineVersion", "ENGINE VERSION"),
        ],
        further: &[("ID", "ID"), ("Self", "SELF")],
        rows,
    }
}

fn row(node: &Value, own: &str, starred: bool) -> Row {
    let id = node.text("/ID");
    let mut row = vec![
        ("ID", id.to_owned()),
        ("Hostname", node.text("/Description/Hostname").to_owned()),
        ("Status", title(node.text("/Status/State"))),
        ("Availability", title(node.text("/Spec/Availability"))),
        (
            "ManagerStatus",
            if node.yes("/ManagerStatus/Leader") {
                "Leader".to_owned()
            } else {
                title(node.text("/ManagerStatus/Reachability"))
            },
        ),
        ("EngineVersion", node.text("/Description/Engine/EngineVersion").to_owned()),
        ("Self", (id == own).to_string()),
    ];
    if starred {
        row.push(("IDStar", if id == own { format!("{id} *") } else { format!("{id}  ") }));
    }
    row
}

fn pretty(node: &Value) -> String {
    let mut out = format!("ID:\t\t\t{}\n", node.text("/ID"));
    if let Some(labels) = node.map("/Spec/Labels").filter(|l| !l.is_empty()) {
        out.push_str("Labels:\n");
        for (key, value) in labels {
            let _ = writeln!(out, " - {key}={}", value.as_str().unwrap_or_default());
        }
    }
    let message = match node.text("/Status/Message") {
        "" => String::new(),
        message => format!("\n Message:\t\t{message}"),
    };
    let _ = writeln!(
        out,
        "Hostname:              \t{}\nJoined at:             \t{}\nStatus:\n State:\t\t\t{}{message}\n Availability:         \t{}\n Address:\t\t{}",
        node.text("/Description/Hostname"),
        node.text("/CreatedAt"),
        title(node.text("/Status/State")),
        title(node.text("/Spec/Availability")),
        node.text("/Status/Addr"),
    );
    if !node["ManagerStatus"].is_null() {
        let leader = if node.yes("/ManagerStatus/Leader") { "Yes" } else { "No" };
        let _ = writeln!(
            out,
            "Manager Status:\n Address:\t\t{}\n Raft Status:\t\t{}\n Leader:\t\t{leader}",
            node.text("/ManagerStatus/Addr"),
            title(node.text("/ManagerStatus/Reachability")),
        );
    }
    let _ = write!(
        out,
        "Platform:\n Operating System:\t{}\n Architecture:\t\t{}\nResources:\n CPUs:\t\t\t{}\n Memory:\t\t{}\nEngine Version:\t\t{}",
        node.text("/Description/Platform/OS"),
        node.text("/Description/Platform/Architecture"),
        node.int("/Description/Resources/NanoCPUs") / 1_000_000_000,
        memory(node.int("/Description/Resources/MemoryBytes")),
        node.text("/Description/Engine/EngineVersion"),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_has_to_say_is_shown() {
        let mut node = json!({"ID": "n", "Status": {"State": "ready"}});
        assert!(!pretty(&node).contains("Message"));
        node["Status"]["Message"] = json!("published port 80/tcp is taken");
        assert!(
            pretty(&node).contains(" State:\t\t\tReady\n Message:\t\tpublished port 80/tcp is taken\n Availability:")
        );
    }

    #[test]
    fn labels_are_added_and_removed() {
        let mut spec = json!({"Role": "worker", "Labels": {"a": "1", "b": "2"}, "Unknown": [1]});
        let flags = UpdateFlags {
            label_add: vec!["c=3=4".into()],
            label_rm: vec!["a".into()],
            availability: Some("drain".into()),
            role: None,
            node: String::new(),
        };
        edit(&mut spec, &flags);
        assert_eq!(
            spec,
            json!({"Role": "worker", "Availability": "drain", "Labels": {"b": "2", "c": "3=4"}, "Unknown": [1]})
        );
    }
}
