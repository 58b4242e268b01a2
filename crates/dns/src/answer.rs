//! What a question is answered with: a pure function of the question and of what is named.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;
use rand::Rng;
use rand::seq::SliceRandom;
use skep_model::{Protocol, TaskId};

use crate::question::{Exists, Question, Reply};
use crate::zone::{Named, Target, Zone};

/// What whoever asks may know.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The zones of its networks: the first that has a name answers for it.
    pub zones: Vec<Arc<Zone>>,
    /// The task that asks.
    pub own: Option<TaskId>,
}

/// What comes of looking a question up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This is known here.
    Known(Reply),
    /// The name is nobody's here.
    Unknown,
}

/// Looks `question` up in the zones of `scope`. Several targets are told in an order that `random` gives.
pub fn answer(question: &Question, scope: &Scope, random: &mut impl Rng) -> Answer {
    let Some(text) = question.name() else { return Answer::Unknown };
    let wanted = question.query().query_type();
    if let Ok(asked) = question.query().name().parse_arpa_name() {
        return scope.reverse(asked, question.query().name(), wanted);
    }
    let looking = Looking { scope, name: question.query().name(), wanted };
    if let Some(named) = scope.find(text) {
        return Answer::Known(looking.addresses(named, random));
    }
    let port = PortAsked::read(text);
    match port.and_then(|port| Some((scope.find(port.of)?, port))) {
        Some((named, port)) => Answer::Known(looking.ports(named, &port, random)),
        None => Answer::Unknown,
    }
}

impl Scope {
    /// `name` on any of the networks, or `name.network` on that one: dots may be in both.
    fn find(&self, text: &str) -> Option<&Named> {
        let whole = self.zones.iter().find_map(|zone| zone.names.get(text));
        let split = || {
            text.rmatch_indices('.').find_map(|(dot, _)| {
                let (name, network) = (&text[..dot], &text[dot + 1..]);
                self.zones.iter().filter(|zone| zone.name == network).find_map(|zone| zone.names.get(name))
            })
        };
        whole.or_else(split)
    }

    fn reverse(&self, asked: IpNet, name: &Name, wanted: RecordType) -> Answer {
        if asked.prefix_len() != asked.max_prefix_len() {
            return Answer::Unknown;
        }
        let address = asked.addr();
        let named = self.zones.iter().find_map(|zone| zone.name_of(address));
        match named.and_then(full) {
            Some(named) if matches!(wanted, RecordType::PTR | RecordType::ANY) => {
                let record = Record::from_rdata(name.clone(), crate::inside::TASK_TTL, RData::PTR(PTR(named)));
                Answer::Known(Reply { answers: vec![record], ..Reply::default() })
            }
            Some(_) => Answer::Known(Reply::default()),
            // What is within a network of the swarm is nobody else's.
            None if self.zones.iter().any(|zone| zone.covers(address)) => {
                Answer::Known(Reply { exists: Exists::No, ..Reply::default() })
            }
            None => Answer::Unknown,
        }
    }
}

/// A name that was found, and what was asked of it.
struct Looking<'a> {
    scope: &'a Scope,
    name: &'a Name,
    wanted: RecordType,
}

impl Looking<'_> {
    fn targets<'n>(&self, named: &'n Named, random: &mut impl Rng) -> Vec<&'n Target> {
        let may_know = |target: &&Target| target.only_for.is_none() || target.only_for == self.scope.own;
        let mut targets: Vec<&Target> = named.targets.iter().map(AsRef::as_ref).filter(may_know).collect();
        targets.shuffle(random);
        targets
    }

    fn addresses(&self, named: &Named, random: &mut impl Rng) -> Reply {
        let targets = self.targets(named, random);
        // Two tasks may share an address outside of the swarm: that of their node.
        let mut told = HashSet::new();
        let each = targets.iter().flat_map(|target| records(self.name, target));
        let asked = |record: &Record| self.wanted == RecordType::ANY || record.record_type() == self.wanted;
        let answers = each.filter(asked).filter(|record| told.insert(record.data.ip_addr())).collect();
        Reply { answers, ..Reply::default() }
    }

    /// One record for each port of each target, as in RFC 2782.
    fn ports(&self, named: &Named, port: &PortAsked<'_>, random: &mut impl Rng) -> Reply {
        let targets = self.targets(named, random);
        let (mut answers, mut extras) = (Vec::new(), Vec::new());
        let (mut told, mut named) = (HashSet::new(), HashSet::new());
        for target in &targets {
            let Some(name) = full(&target.name) else { continue };
            let ports = port.port.map(|(protocol, number)| target.ports.of(protocol, number)).unwrap_or_default();
            if ports.is_empty() {
                continue;
            }
            for port in ports.into_iter().filter(|port| told.insert((target.name.as_str(), *port))) {
                let srv = RData::SRV(SRV::new(0, 1, port, name.clone()));
                answers.push(Record::from_rdata(self.name.clone(), target.ttl, srv));
            }
            if named.insert(target.name.as_str()) {
                extras.extend(records(&name, target));
            }
        }
        let exists = if answers.is_empty() && !targets.is_empty() { Exists::No } else { Exists::Yes };
        if matches!(self.wanted, RecordType::SRV | RecordType::ANY) {
            Reply { answers, extras, exists }
        } else {
            Reply { exists, ..Reply::default() }
        }
    }
}

fn records<'a>(name: &'a Name, target: &'a Target) -> impl Iterator<Item = Record> + 'a {
    target.addresses.iter().map(move |address| {
        let data = match *address {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        Record::from_rdata(name.clone(), target.ttl, data)
    })
}

/// A name as it is written into records; `None` for one that is too long for DNS.
fn full(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// `_port._protocol.name`.
struct PortAsked<'a> {
    /// `None` for a port or protocol that there is not.
    port: Option<(Protocol, u16)>,
    of: &'a str,
}

impl<'a> PortAsked<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (port, rest) = text.strip_prefix('_')?.split_once('.')?;
        let (protocol, of) = rest.strip_prefix('_')?.split_once('.')?;
        let number = port.parse().ok().filter(|number| *number > 0);
        Some(Self { port: protocol.parse().ok().zip(number), of })
    }
}
