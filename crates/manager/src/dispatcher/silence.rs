//! Who is not heard of at present. Long before a node counts as lost, the others are told to send their new flows elsewhere: that costs nothing
//! when it was only a daemon that is starting again.

use std::collections::BTreeSet;

use skep_model::NodeId;
use skep_rpc::proto::Silent;
use tokio::sync::watch;

/// The members that are not heard of.
#[derive(Default)]
pub(super) struct Silence(watch::Sender<BTreeSet<NodeId>>);

impl Silence {
    /// A node speaks.
    pub(super) fn heard(&self, node: &NodeId) {
        self.0.send_if_modified(|silent| silent.remove(node));
    }

    /// A node has ended its session, or somebody has for it.
    pub(super) fn hung_up(&self, node: &NodeId) {
        self.0.send_if_modified(|silent| silent.insert(node.clone()));
    }

    /// Adds those that have said nothing for a while, and forgets those that are `past`: no members, or lost.
    pub(super) fn look(&self, quiet: impl IntoIterator<Item = NodeId>, past: impl Fn(&NodeId) -> bool) {
        self.0.send_if_modified(|silent| {
            let before = silent.len();
            silent.retain(|node| !past(node));
            let kept = silent.len();
            silent.extend(quiet);
            before != kept || silent.len() != kept
        });
    }

    pub(super) fn watch(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.0.subscribe()
    }
}

/// What a node is told.
pub(super) fn message(silent: &BTreeSet<NodeId>) -> Silent {
    Silent { node_ids: silent.iter().map(ToString::to_string).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_is_not_silent_and_who_is_lost_is_forgotten() {
        let (a, b, c) = (NodeId::random(), NodeId::random(), NodeId::random());
        let silence = Silence::default();
        let mut watch = silence.watch();
        let mut news = || watch.has_changed().unwrap().then(|| watch.borrow_and_update().clone());
        silence.hung_up(&a);
        silence.look([b.clone()], |_| false);
        assert_eq!(news(), Some(BTreeSet::from([a.clone(), b.clone()])));
        silence.look([b.clone()], |_| false);
        silence.heard(&c);
        assert_eq!(news(), None, "what is known already is no news");
        silence.heard(&b);
        assert_eq!(news(), Some(BTreeSet::from([a.clone()])));
        silence.look([], |node| *node == a);
        assert_eq!(news(), Some(BTreeSet::new()));
    }
}
