//! Host-mode ports of a task: which number each gets on this node.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use skep_model::{PortConfig, Protocol, PublishedPort};

/// Where numbers are taken from when the person left the choice to skep: above the range of ingress ports, as Docker does.
const FIRST: u16 = 32_768;

/// Gives every port of `asked` a number. Fixed ones keep theirs; the others get the lowest that `taken` does not have.
/// `None` when there are no numbers left.
#[must_use]
pub fn assign(asked: &[PortConfig], taken: &BTreeSet<(Protocol, u16)>) -> Option<Vec<PublishedPort>> {
    let fixed = asked.iter().filter_map(|p| p.published.map(|n| (p.protocol, n.get())));
    let mut taken: BTreeSet<_> = taken.iter().copied().chain(fixed).collect();
    asked
        .iter()
        .map(|port| {
            let published = match port.published {
                Some(published) => published,
                None => lowest_free(port.protocol, &taken)?,
            };
            taken.insert((port.protocol, published.get()));
            Some(PublishedPort { protocol: port.protocol, target: port.target, published, mode: port.mode })
        })
        .collect()
}

fn lowest_free(protocol: Protocol, taken: &BTreeSet<(Protocol, u16)>) -> Option<NonZeroU16> {
    (FIRST..=u16::MAX).find(|&n| !taken.contains(&(protocol, n))).and_then(NonZeroU16::new)
}

#[cfg(test)]
mod tests {
    use skep_model::PublishMode;

    use super::*;

    fn port(published: Option<u16>) -> PortConfig {
        let n = |n| NonZeroU16::new(n).unwrap();
        PortConfig {
            name: None,
            protocol: Protocol::Tcp,
            target: n(80),
            published: published.map(n),
            mode: PublishMode::Host,
        }
    }

    fn numbers(ports: Option<Vec<PublishedPort>>) -> Vec<u16> {
        ports.unwrap().iter().map(|p| p.published.get()).collect()
    }

    #[test]
    fn fixed_numbers_stay_and_others_are_the_lowest_free() {
        let taken = [(Protocol::Tcp, FIRST), (Protocol::Udp, FIRST + 1)].into();
        assert_eq!(
            numbers(assign(&[port(None), port(Some(FIRST + 1)), port(None)], &taken)),
            [FIRST + 2, FIRST + 1, FIRST + 3]
        );
    }

    #[test]
    fn no_numbers_left_is_said() {
        let taken = (FIRST..=u16::MAX).map(|n| (Protocol::Tcp, n)).collect();
        assert_eq!(assign(&[port(None)], &taken), None);
    }
}
