//! Between tasks of two nodes, on a network of their own: by the task's address, by the service's, and by a plain VXLAN device between namespaces of the
//! same kind.

use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;

use skep_mesh::NetworkKind;

use crate::figures::Samples;
use crate::lab::{Lab, Netns};
use crate::paths::{BULK, DATAGRAMS, Effort, HTTP, Path, Sees, Server};
use crate::plain;

pub(crate) const TASK: &str = "skep, by the task's address";
pub(crate) const VIP: &str = "skep, by the service's address";
pub(crate) const PLAIN: &str = "a plain VXLAN device";

/// The last bytes of the underlay addresses of the two nodes without skep.
const NODES: (u8, u8) = (70, 71);

/// The three ways, and what has to live as long as they do.
pub(crate) struct Talks {
    paths: [Path; 3],
    _plain: [Netns; 3],
}

impl Talks {
    /// Two nodes with skep: a client for each way on the first, the only task of the service that is asked on the second. Two others without.
    pub(crate) fn new(lab: &mut Lab) -> Self {
        let first = lab.tasks.len();
        lab.service(&[], &[0, 0]);
        let asked = lab.service(&[], &[1]);
        let app = lab.network("10.6.0.0/24", NetworkKind::Open);
        let addr = (first..first + 3).map(|task| lab.join(task, &app)).last().expect("three tasks");
        let vip = lab.own_address(&asked, &app);
        lab.apply();
        let server = Server::start(&lab.tasks[first + 2].ns, addr);
        let by_task = Path::direct(TASK, client(lab, first), server.clone());
        let by_service = by(VIP, vip, client(lab, first + 1), server);
        let (by_device, plain) = plain_path(lab);
        let paths = [by_task, by_service, by_device];
        paths.iter().for_each(|path| path.check(Sees::Client));
        Self { paths, _plain: plain }
    }

    /// Each way once.
    pub(crate) fn measure(&self, effort: Effort, samples: &mut Samples) {
        self.paths.iter().for_each(|path| path.measure(effort, samples));
    }
}

/// A task's namespace, which the lab has no more use for once everything was applied.
fn client(lab: &mut Lab, task: usize) -> Netns {
    let client = mem::replace(&mut lab.tasks[task].ns, Netns::new(&format!("gone{task}")));
    client.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
    client
}

fn by(name: &'static str, addr: Ipv4Addr, client: Netns, server: Rc<Server>) -> Path {
    let at = |port| SocketAddrV4::new(addr, port);
    Path { name, client, server, http: at(HTTP), bulk: at(BULK), datagrams: Some(at(DATAGRAMS)) }
}

/// Two machines that forward, a device between them, and a task on each.
fn plain_path(lab: &Lab) -> (Path, [Netns; 3]) {
    let (here, there) = NODES;
    let nodes = [(here, there, 1, 2), (there, here, 2, 1)].map(|(n, remote, own, other)| {
        let node = plain::node(lab, n);
        plain::vxlan(&node, "vx", here, remote);
        node.ip(&format!("addr add 10.3.{here}.{own}/30 dev vx"));
        let (task, addr) = plain::routed_task(&node, n);
        (node, task, addr, format!("10.3.{here}.{other}"))
    });
    let [(near, client, own, to_far), (far, task, addr, to_near)] = nodes;
    near.ip(&format!("route add {addr} via {to_far}"));
    far.ip(&format!("route add {own} via {to_near}"));
    client.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
    let path = Path::direct(PLAIN, client, Server::start(&task, addr));
    (path, [near, far, task])
}
