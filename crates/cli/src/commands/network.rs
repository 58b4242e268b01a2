//! `network`.

use std::io::BufRead as _;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::shared::{self, InspectFlags, ListFlags, segment};
use crate::client::is_not_found;
use crate::output::{Listing, short_id};
use crate::session::Session;
use crate::values::{filters, key_value};
use crate::view::View as _;

/// The verbs of networks.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a network
    Create(Box<CreateFlags>),
    /// List networks
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        list: ListFlags,
        /// Show whole identifiers
        #[arg(long)]
        no_trunc: bool,
    },
    /// Show networks as JSON
    Inspect {
        #[command(flatten)]
        inspect: InspectFlags,
        /// Show the services and tasks on it too
        #[arg(short, long)]
        verbose: bool,
    },
    /// Remove networks
    #[command(alias = "remove")]
    Rm {
        /// Names or identifiers
        #[arg(required = true)]
        names: Vec<String>,
        /// Do not mind those that are not there
        #[arg(short, long)]
        force: bool,
    },
    /// Remove all networks that no service is on
    Prune {
        /// Remove only these: until=24h, label=key
        #[arg(long)]
        filter: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

/// Flags of `network create`.
#[derive(Debug, Default, Args)]
pub struct CreateFlags {
    /// The kind of network; there is one
    #[arg(short, long, default_value = "overlay")]
    driver: String,
    /// Its addresses: 10.9.0.0/24; chosen from the swarm's pools when left out. With --ipv6 also an IPv6 one: 2001:db8:9::/64
    #[arg(long)]
    subnet: Vec<String>,
    /// The part of the subnet that addresses are given from
    #[arg(long)]
    ip_range: Vec<String>,
    /// An address in the subnet that no task gets
    #[arg(long)]
    gateway: Vec<String>,
    /// Let containers that are started by hand be attached
    #[arg(long)]
    attachable: bool,
    /// Keep its tasks from the outside world
    #[arg(long)]
    internal: bool,
    /// Make it the routing mesh's network
    #[arg(long)]
    ingress: bool,
    /// Ask for IPv6, which tasks have either way
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// Label it
    #[arg(long)]
    label: Vec<String>,
    /// An option of the driver: key=value
    #[arg(short, long)]
    opt: Vec<String>,
    /// Where it is valid: swarm
    #[arg(long)]
    scope: Option<String>,
    /// Its name
    name: String,
}

/// Carries out a verb.
pub(super) async fn run(session: &mut Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(flags) => {
            let answer = session.client.post("/networks/create", &[], &created(&flags)).await?;
            Ok(session.line(answer.text("/Id"))?)
        }
        Command::Ls { list, no_trunc } => ls(session, &list, no_trunc).await,
        Command::Inspect { inspect, verbose } => {
            let path = |name: &str| format!("/networks/{}", segment(name));
            let query: &[_] = if verbose { &[("verbose", "true".to_owned())] } else { &[] };
            shared::inspect(session, &inspect, path, query, |v| crate::output::indent(&v.to_string())).await
        }
        Command::Rm { names, force } => {
            for name in names {
                remove(session, &name, force).await?;
            }
            Ok(())
        }
        Command::Prune { filter, force } => prune(session, &filter, force).await,
    }
}

/// Removes a network; the routing mesh's only when the person says so again.
async fn remove(session: &mut Session, name: &str, force: bool) -> anyhow::Result<()> {
    let path = format!("/networks/{}", segment(name));
    let is_ingress = session.client.get(&path, &[]).await.is_ok_and(|network| network["Ingress"] == true);
    if is_ingress
        && !force
        && !agrees(session, "WARNING! Without the routing-mesh network no port can be published on all nodes.")?
    {
        return Ok(());
    }
    match session.client.delete(&path, &[]).await {
        Ok(_) => session.line(name)?,
        Err(error) if force && is_not_found(&error) => {}
        Err(error) => session.report(&error),
    }
    Ok(())
}

/// Whether the person wants it after a warning.
fn agrees(session: &mut Session, warning: &str) -> anyhow::Result<bool> {
    session.line(warning)?;
    session.line("Are you sure you want to continue? [y/N] ")?;
    session.out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The request for a network.
fn created(flags: &CreateFlags) -> Value {
    let map = |pairs: &[String]| -> Map<String, Value> {
        pairs.iter().map(|pair| key_value(pair)).map(|(key, value)| (key, json!(value))).collect()
    };
    let mut request = json!({
        "Name": flags.name, "Driver": flags.driver, "Scope": flags.scope.as_deref().unwrap_or_default(),
        "IPAM": { "Driver": "default", "Options": {}, "Config": configs(flags) },
        "Internal": flags.internal, "Attachable": flags.attachable, "Ingress": flags.ingress,
        "ConfigOnly": false, "ConfigFrom": null, "Options": map(&flags.opt), "Labels": map(&flags.label),
    });
    if let Some(ipv6) = flags.ipv6 {
        request["EnableIPv6"] = json!(ipv6);
    }
    request
}

/// One for each subnet; ranges and gateways go with those of their family.
fn configs(flags: &CreateFlags) -> Vec<Map<String, Value>> {
    let entry = |field: &str, text: &String| Map::from_iter([(field.to_owned(), json!(text))]);
    let mut configs: Vec<_> = flags.subnet.iter().map(|subnet| entry("Subnet", subnet)).collect();
    for (field, given) in [("IPRange", &flags.ip_range), ("Gateway", &flags.gateway)] {
        for text in given {
            let same_family = |subnet: &Value| subnet.as_str().unwrap_or_default().contains(':') == text.contains(':');
            let fits = |config: &&mut Map<String, Value>| {
                config.get("Subnet").is_some_and(same_family) && !config.contains_key(field)
            };
            match configs.iter_mut().find(fits) {
                Some(config) => config.extend(entry(field, text)),
                None => configs.push(entry(field, text)),
            }
        }
    }
    configs
}

async fn ls(session: &mut Session, list: &ListFlags, no_trunc: bool) -> anyhow::Result<()> {
    let mut networks = session.client.get("/networks", &list.query()?).await?;
    let networks = networks.as_array_mut().map(std::mem::take).unwrap_or_default();
    let mut rows: Vec<_> = networks
        .iter()
        .map(|n| {
            let id = n.text("/Id");
            let id = if no_trunc { id } else { short_id(id) };
            vec![
                ("ID", id.to_owned()),
                ("Name", n.text("/Name").to_owned()),
                ("Driver", n.text("/Driver").to_owned()),
                ("Scope", n.text("/Scope").to_owned()),
            ]
        })
        .collect();
    rows.sort_by(|a, b| a[1].1.cmp(&b[1].1));
    let columns = &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE")];
    list.show(session, &Listing { columns, further: &[], rows })
}

async fn prune(session: &mut Session, filter: &[String], force: bool) -> anyhow::Result<()> {
    if !force {
        let wanted = agrees(session, "WARNING! This will remove all networks that no service is on.")?;
        anyhow::ensure!(wanted, "network prune has been cancelled");
    }
    let query: Vec<_> = filters(filter)?.map(|filters| ("filters", filters)).into_iter().collect();
    let answer = session.client.post("/networks/prune", &query, &Value::Null).await?;
    let deleted = answer.texts("/NetworksDeleted");
    if !deleted.is_empty() {
        session.line("Deleted Networks:")?;
    }
    for name in deleted {
        session.line(name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn what_docker_sends_for_the_same_flags() {
        let words =
            "skep create -d overlay --attachable --subnet 10.50.0.0/24 --gateway 10.50.0.1 --label a=b --opt x ov2";
        let Command::Create(flags) = Line::try_parse_from(words.split(' ')).unwrap().command else { panic!("another") };
        let want = json!({"Driver":"overlay","Scope":"","IPAM":{"Driver":"default","Options":{},"Config":[
            {"Subnet":"10.50.0.0/24","Gateway":"10.50.0.1"}]},"Internal":false,"Attachable":true,"Ingress":false,
            "ConfigOnly":false,"ConfigFrom":null,"Options":{"x":""},"Labels":{"a":"b"},"Name":"ov2"});
        assert_eq!(created(&flags), want);
    }

    #[test]
    fn gateways_and_ranges_go_with_subnets_of_their_family() {
        let words = "skep create --ipv6 --gateway 2001:db8:9::1 --gateway 10.9.0.1 --subnet 10.9.0.0/24 --subnet 2001:db8:9::/64 \
                     --ip-range 10.9.0.64/26 --ip-range fd00::/64 --ip-range fd01::/64 x";
        let Command::Create(flags) = Line::try_parse_from(words.split_whitespace()).unwrap().command else {
            panic!("another")
        };
        let want = json!([
            { "Subnet": "10.9.0.0/24", "IPRange": "10.9.0.64/26", "Gateway": "10.9.0.1" },
            { "Subnet": "2001:db8:9::/64", "IPRange": "fd00::/64", "Gateway": "2001:db8:9::1" },
            { "IPRange": "fd01::/64" },
        ]);
        assert_eq!(created(&flags)["IPAM"]["Config"], want);
    }
}
