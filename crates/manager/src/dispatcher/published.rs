//! What a node has been told of services, and what of it is new: which ports are published, and how each behaves on that node.

use std::collections::BTreeMap;

use bytes::Bytes;
use skep_model::{
    Constraint, Node, PortOptions, PublishMode, PublishOptions, Service, ServiceEntry, ServiceId, ServiceNetwork,
    Version, publish_options,
};
use skep_rpc::encode;
use skep_store::Tables;

/// The services that a node has been told of.
#[derive(Default)]
pub(super) struct Published(BTreeMap<ServiceId, Told>);

struct Told {
    /// The service's version that was looked at last: the entry is made anew for another one only, because there may be tens of thousands of
    /// ports, and something happens all the time.
    seen: Version,
    entry: ServiceEntry,
}

/// Whether something has changed about a node that constraints may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeIs {
    AsBefore,
    Changed,
}

impl Published {
    /// What `node` is to be told now: entries that are new or other than before, and the ids of those that are gone.
    pub(super) fn next(&mut self, tables: &Tables, node: &Node, is: NodeIs) -> (Vec<Bytes>, Vec<String>) {
        let mut news = Vec::new();
        for service in tables.all::<Service>() {
            let told = self.0.get_mut(&service.id);
            let depends = |told: &Told| is == NodeIs::Changed && !told.entry.options.is_empty();
            if told.as_ref().is_some_and(|told| told.seen == service.meta.version && !depends(told)) {
                continue;
            }
            let (seen, entry) = (service.meta.version, entry(service, node));
            match told {
                Some(told) if same(&told.entry, &entry) => told.seen = seen,
                _ => {
                    news.push(encode(&entry));
                    self.0.insert(service.id.clone(), Told { seen, entry });
                }
            }
        }
        (news, self.forget(tables))
    }

    fn forget(&mut self, tables: &Tables) -> Vec<String> {
        if self.0.len() == tables.all::<Service>().len() {
            return Vec::new();
        }
        let gone = self.0.extract_if(.., |id, _| tables.get::<Service>(id).is_none());
        gone.map(|(id, _)| id.to_string()).collect()
    }
}

fn entry(service: &Service, node: &Node) -> ServiceEntry {
    let ports = service.endpoint.ports.iter().filter(|port| port.mode == PublishMode::Ingress);
    let mut entry = ServiceEntry {
        id: service.id.clone(),
        name: service.spec.name.to_string(),
        version: service.meta.version,
        ports: ports.copied().collect(),
        options: Vec::new(),
        virtual_ips: service.endpoint.virtual_ips.clone(),
        networks: networks(service),
    };
    match publish_options(&service.spec.labels, &service.endpoint.ports) {
        Ok(options) => {
            let told = options.into_iter().map(|((published, protocol), options)| {
                let answers = answers(&options, node);
                PortOptions { protocol, published, options, answers }
            });
            entry.options = told.collect();
        }
        // It was checked before it was stored, by a version that may have known other labels. What it was to keep out must stay out.
        Err(error) => {
            tracing::error!(service = %service.spec.name, "published nowhere: {error}");
            entry.ports.clear();
        }
    }
    entry
}

fn networks(service: &Service) -> Vec<ServiceNetwork> {
    let asked = service.spec.task.networks.iter();
    asked.map(|(network, aliases)| ServiceNetwork { network: network.clone(), aliases: aliases.clone() }).collect()
}

fn answers(options: &PublishOptions, node: &Node) -> bool {
    options.nodes.iter().all(|text| text.parse::<Constraint>().is_ok_and(|constraint| constraint.matches(node)))
}

/// The mesh does not care for the version alone.
fn same(a: &ServiceEntry, b: &ServiceEntry) -> bool {
    let of = |entry: &ServiceEntry| ServiceEntry { version: Version(0), ..entry.clone() };
    of(a) == of(b)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use skep_model::{NodeId, PublishMode};

    use super::*;
    use crate::tests::{Sim, publish, spec};

    fn told(published: &mut Published, sim: &Sim, node: &NodeId, is: NodeIs) -> (Vec<ServiceEntry>, Vec<String>) {
        let node = sim.tables.get::<Node>(node).unwrap();
        let (news, gone) = published.next(&sim.tables, node, is);
        (news.iter().map(|bytes| skep_rpc::decode(bytes).unwrap()).collect(), gone)
    }

    #[test]
    fn options_are_told_with_whether_the_node_answers_and_follow_its_labels() {
        let mut sim = Sim::new(1);
        let mut web =
            publish(spec("web", 1), &[(80, Some(8080), PublishMode::Ingress), (81, Some(8081), PublishMode::Host)]);
        web.labels.insert("skep.publish.8080.nodes".to_owned(), "node.labels.edge==true".to_owned());
        web.labels.insert("skep.publish.8081.drain".to_owned(), "9s".to_owned());
        let id = sim.create(web).unwrap();
        let worker = sim.nodes().into_iter().find(|n| sim.tables.get::<Node>(n).unwrap().manager.is_none()).unwrap();
        let mut published = Published::default();
        let (entries, _) = told(&mut published, &sim, &worker, NodeIs::Changed);
        assert_eq!(entries[0].ports.iter().map(|p| p.published.get()).collect::<Vec<_>>(), [8080]);
        let answers = |e: &ServiceEntry| e.options.iter().map(|o| (o.published.get(), o.answers)).collect::<Vec<_>>();
        assert_eq!(answers(&entries[0]), [(8080, false), (8081, true)]);
        assert_eq!(entries[0].options[1].options.drain, Some(Duration::from_secs(9)));

        sim.node(&worker, |node| drop(node.spec.labels.insert("edge".to_owned(), "true".to_owned())));
        assert!(told(&mut published, &sim, &worker, NodeIs::AsBefore).0.is_empty());
        let (entries, _) = told(&mut published, &sim, &worker, NodeIs::Changed);
        assert_eq!(answers(&entries[0]), [(8080, true), (8081, true)]);
        assert!(told(&mut published, &sim, &worker, NodeIs::Changed).0.is_empty(), "told once");

        // What nodes do not care for is not told again; what they do care for is.
        sim.update(&id, |spec| drop(spec.labels.insert("a".to_owned(), "b".to_owned()))).unwrap();
        assert!(told(&mut published, &sim, &worker, NodeIs::AsBefore).0.is_empty());
        sim.update(&id, |spec| drop(spec.labels.insert("skep.publish.8080.lb".to_owned(), "local-first".to_owned())))
            .unwrap();
        assert_eq!(told(&mut published, &sim, &worker, NodeIs::AsBefore).0.len(), 1);
        sim.apply(vec![skep_store::Change::Delete(skep_store::Key::Service(id.clone()))]);
        assert_eq!(told(&mut published, &sim, &worker, NodeIs::AsBefore), (Vec::new(), vec![id.to_string()]));
    }

    #[test]
    fn labels_that_cannot_be_read_publish_nothing() {
        let mut sim = Sim::new(0);
        let id = sim.create(publish(spec("web", 1), &[(80, Some(8080), PublishMode::Ingress)])).unwrap();
        let mut service = Service::clone(sim.tables.get(&id).unwrap());
        service.spec.labels.insert("skep.publish.8080.later".to_owned(), "x".to_owned());
        sim.apply(vec![service.into()]);
        let node = sim.nodes()[0].clone();
        assert!(told(&mut Published::default(), &sim, &node, NodeIs::Changed).0[0].ports.is_empty());
    }

    /// Every event makes every session look: what has not changed must cost next to nothing.
    #[test]
    fn looking_again_at_ten_thousand_ports_is_cheap() {
        let mut sim = Sim::new(0);
        let ports: Vec<_> = (10_000..20_000).map(|port| (80, Some(port), PublishMode::Ingress)).collect();
        let mut many = publish(spec("many", 1), &ports);
        many.labels.insert("skep.publish.10000-19999.sources".to_owned(), "10.0.0.0/8".to_owned());
        sim.create(many).unwrap();
        let node = sim.nodes()[0].clone();
        let mut published = Published::default();
        told(&mut published, &sim, &node, NodeIs::Changed);
        let began = Instant::now();
        for _ in 0..1000 {
            assert!(told(&mut published, &sim, &node, NodeIs::AsBefore).0.is_empty());
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}
