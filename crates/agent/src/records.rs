//! What a node tells of a task: a record for each of its networks, all of the same state.

use skep_model::{EndpointKey, EndpointRecord, EndpointState, NetworkAttachment, PublishedPort, Task};

/// The keys of a task's endpoints: that on the network of the routing mesh first.
pub(crate) fn keys(task: &Task) -> impl Iterator<Item = EndpointKey> + '_ {
    task.attachments.iter().map(|on| EndpointKey { network: on.network.clone(), task: task.id.clone() })
}

/// A task's endpoints. That on the network of the routing mesh, the first, has the ports of the node that lead to the task; the others have its names.
pub(crate) fn records<'a>(
    task: &'a Task,
    hostname: &'a str,
    host_ports: &'a [PublishedPort],
    state: EndpointState,
) -> impl Iterator<Item = (EndpointKey, EndpointRecord)> + 'a {
    let record = move |(number, on): (usize, &NetworkAttachment)| EndpointRecord {
        service: task.service.clone(),
        addr: on.addr.addr(),
        state,
        weight: 1,
        aliases: if number == 0 { Vec::new() } else { vec![task.display_name(), hostname.to_owned()] },
        host_ports: if number == 0 { host_ports.to_vec() } else { Vec::new() },
    };
    keys(task).zip(task.attachments.iter().enumerate().map(record))
}

#[cfg(test)]
mod tests {
    use skep_model::{Protocol, PublishMode};

    use super::*;

    #[test]
    fn a_task_is_told_of_once_for_each_of_its_networks() {
        let mut task = crate::task::example();
        let network = |digit: char| digit.to_string().repeat(25).parse().unwrap();
        let more = NetworkAttachment { network: network('o'), addr: "10.3.0.7/24".parse().unwrap() };
        task.attachments.push(more);
        let (target, published) = (80.try_into().unwrap(), 32_768.try_into().unwrap());
        let port = PublishedPort { protocol: Protocol::Tcp, target, published, mode: PublishMode::Host };
        let told: Vec<_> = records(&task, "box", &[port], EndpointState::Ready).collect();
        let first = &told[0].1;
        assert_eq!((first.aliases.len(), &first.host_ports), (0, &vec![port]));
        let (key, second) = &told[1];
        assert_eq!((&key.network, second.addr.octets()), (&network('o'), [10, 3, 0, 7]));
        assert_eq!((&second.aliases, second.host_ports.len()), (&vec!["web.1".to_owned(), "box".to_owned()], 0));
        assert_eq!(keys(&task).collect::<Vec<_>>(), told.into_iter().map(|(key, _)| key).collect::<Vec<_>>());
    }
}
