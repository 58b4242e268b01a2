//! Which object a name in a path means: a full id, an exact name, or the beginning of one id.

use std::fmt;
use std::sync::Arc;

use skep_model::{Config, Network, Node, Secret, Service, Task};

use super::answer::Refusal;
use crate::backend::cluster::ClusterView;
use crate::error::{Error, ErrorKind};

/// Something that can be named.
trait Named {
    fn id(&self) -> &str;
    fn is_called(&self, name: &str) -> bool;
}

impl Named for Service {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn is_called(&self, name: &str) -> bool {
        self.spec.name.as_str() == name
    }
}

impl Named for Node {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn is_called(&self, name: &str) -> bool {
        self.spec.name.as_deref() == Some(name) || self.description.as_ref().is_some_and(|d| d.hostname == name)
    }
}

impl Named for Network {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn is_called(&self, name: &str) -> bool {
        self.spec.name == name
    }
}

impl Named for Secret {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn is_called(&self, name: &str) -> bool {
        self.spec.name.as_str() == name
    }
}

impl Named for Config {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn is_called(&self, name: &str) -> bool {
        self.spec.name.as_str() == name
    }
}

impl Named for Task {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn is_called(&self, name: &str) -> bool {
        name.strip_prefix(self.display_name().as_str()).is_some_and(|rest| rest.strip_prefix('.') == Some(self.id()))
    }
}

fn find<'a, T: Named + 'a>(
    what: impl fmt::Display,
    name: &str,
    all: impl Iterator<Item = &'a Arc<T>> + Clone,
) -> Result<&'a Arc<T>, Refusal> {
    if let Some(exact) = all.clone().find(|o| o.id() == name) {
        return Ok(exact);
    }
    let only = |mut found: Box<dyn Iterator<Item = &'a Arc<T>> + '_>| match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => Ok(Some(one)),
        (Some(_), Some(_)) => {
            let more = 2 + found.count();
            Err(Refusal::of_cluster(Error::new(
                ErrorKind::Unknown,
                format!("{what} {name} is ambiguous ({more} matches found)"),
            )))
        }
    };
    if let Some(called) = only(Box::new(all.clone().filter(|o| o.is_called(name))))? {
        return Ok(called);
    }
    let begins = all.filter(|o| !name.is_empty() && o.id().starts_with(name));
    only(Box::new(begins))?.ok_or_else(|| Error::not_found(&what, name).into())
}

pub(crate) fn service<'a>(view: &'a ClusterView, name: &str) -> Result<&'a Arc<Service>, Refusal> {
    find("service", name, view.services.values())
}

pub(crate) fn node<'a>(view: &'a ClusterView, name: &str) -> Result<&'a Arc<Node>, Refusal> {
    find("node", name, view.nodes.values())
}

pub(crate) fn network<'a>(
    networks: impl Iterator<Item = &'a Arc<Network>> + Clone,
    name: &str,
) -> Result<&'a Arc<Network>, Refusal> {
    find("network", name, networks)
}

pub(crate) fn secret<'a>(view: &'a ClusterView, name: &str) -> Result<&'a Arc<Secret>, Refusal> {
    find("secret", name, view.secrets.values())
}

pub(crate) fn config<'a>(view: &'a ClusterView, name: &str) -> Result<&'a Arc<Config>, Refusal> {
    find("config", name, view.configs.values())
}

pub(crate) fn task<'a>(view: &'a ClusterView, name: &str) -> Result<&'a Arc<Task>, Refusal> {
    find("task", name, view.tasks.values())
}
