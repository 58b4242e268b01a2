//! Endpoints in the order of their keys, in pieces that are shared between what was seen before a change and after it.

use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use skep_model::{EndpointKey, NetworkId};

use super::Located;

/// A piece that grows beyond this is cut in two.
const LARGEST: usize = 128;

type Chunk = Vec<(EndpointKey, Located)>;

/// A sorted map. A clone costs nothing; the first change of one copies the list of pieces, and each piece that it touches.
#[derive(Clone, Default)]
pub struct Endpoints {
    /// None of them empty.
    chunks: Arc<Vec<Arc<Chunk>>>,
    len: usize,
}

impl Endpoints {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The endpoint, and where it is.
    #[must_use]
    pub fn get(&self, key: &EndpointKey) -> Option<&Located> {
        let chunk = self.chunks.get(self.place(key))?;
        let at = chunk.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        Some(&chunk[at].1)
    }

    /// All of them, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&EndpointKey, &Located)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(key, located)| (key, located))
    }

    /// Those on one network, in the order of their tasks.
    pub fn of_network<'a>(&'a self, network: &'a NetworkId) -> impl Iterator<Item = (&'a EndpointKey, &'a Located)> {
        let first = self.chunks.partition_point(|chunk| chunk[0].0.network < *network).saturating_sub(1);
        let from = self.chunks[first.min(self.chunks.len())..].iter().flat_map(|chunk| chunk.iter());
        let theirs = from.skip_while(|(key, _)| key.network < *network).take_while(|(key, _)| key.network == *network);
        theirs.map(|(key, located)| (key, located))
    }

    /// Their keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &EndpointKey> {
        self.iter().map(|(key, _)| key)
    }

    /// Whether it was not there, or another.
    pub(super) fn insert(&mut self, key: EndpointKey, located: Located) -> bool {
        if self.get(&key) == Some(&located) {
            return false;
        }
        let place = self.place(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() {
            chunks.push(Arc::default());
        }
        let chunk = Arc::make_mut(&mut chunks[place]);
        match chunk.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => chunk[at].1 = located,
            Err(at) => {
                chunk.insert(at, (key, located));
                self.len += 1;
            }
        }
        if chunk.len() > LARGEST {
            let second = chunk.split_off(LARGEST / 2);
            chunks.insert(place + 1, Arc::new(second));
        }
        true
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, key: &EndpointKey) -> bool {
        if self.get(key).is_none() {
            return false;
        }
        let place = self.place(key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[place]);
        chunk.retain(|(other, _)| other != key);
        self.len -= 1;
        let left = chunk.len();
        if left == 0 {
            chunks.remove(place);
        } else if chunks.get(place + 1).is_some_and(|next| left + next.len() <= LARGEST / 2) {
            let next = chunks.remove(place + 1);
            Arc::make_mut(&mut chunks[place]).extend(next.iter().cloned());
        }
        true
    }

    /// The piece that the key is in, or would be.
    fn place(&self, key: &EndpointKey) -> usize {
        self.chunks.partition_point(|chunk| chunk[0].0 <= *key).saturating_sub(1)
    }
}

impl Index<&EndpointKey> for Endpoints {
    type Output = Located;

    fn index(&self, key: &EndpointKey) -> &Located {
        self.get(key).expect("the endpoint is there")
    }
}

impl FromIterator<(EndpointKey, Located)> for Endpoints {
    fn from_iter<I: IntoIterator<Item = (EndpointKey, Located)>>(all: I) -> Self {
        let mut endpoints = Self::default();
        for (key, located) in all {
            endpoints.insert(key, located);
        }
        endpoints
    }
}

impl PartialEq for Endpoints {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for Endpoints {}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use skep_model::{EndpointRecord, EndpointState, NodeId};

    use super::*;

    fn key(number: u16) -> EndpointKey {
        EndpointKey { network: "0".repeat(25).parse().unwrap(), task: format!("{number:025}").parse().unwrap() }
    }

    fn located(weight: u32) -> Located {
        let service = "0".repeat(25).parse().unwrap();
        let addr = [10, 0, 0, 1].into();
        let record = EndpointRecord {
            service,
            addr,
            state: EndpointState::Ready,
            weight,
            aliases: Vec::new(),
            host_ports: Vec::new(),
        };
        Located { owner: "n".repeat(25).parse::<NodeId>().unwrap(), record: record.into() }
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_what_was_seen_before_stays(
            steps in prop::collection::vec((0u16..1000, prop::option::weighted(0.6, 0u32..3)), 0..1500),
        ) {
            let (mut map, mut truth) = (Endpoints::default(), BTreeMap::new());
            let mut before = None;
            for (at, (number, weight)) in steps.iter().enumerate() {
                if at == steps.len() / 2 {
                    before = Some((map.clone(), truth.clone()));
                }
                let key = key(*number);
                match weight {
                    Some(weight) => {
                        let news = truth.insert(key.clone(), located(*weight)) != Some(located(*weight));
                        prop_assert_eq!(map.insert(key, located(*weight)), news);
                    }
                    None => prop_assert_eq!(map.remove(&key), truth.remove(&key).is_some()),
                }
            }
            for (map, truth) in before.into_iter().chain([(map, truth)]) {
                prop_assert!(map.iter().eq(truth.iter()));
                prop_assert_eq!(map.len(), truth.len());
                prop_assert!(map.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= LARGEST));
                prop_assert!((0..1000).all(|number| map.get(&key(number)) == truth.get(&key(number))));
            }
        }
    }
}
