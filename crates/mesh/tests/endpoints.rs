//! Endpoints that come and go, by real connections.

mod lab;

use std::net::TcpStream;

use lab::{Answer, Lab, ask_on, ingress};
use skep_model::{EndpointState, Protocol};

/// Connections that an owner passed on while its task was stopping: they are another task's, and stay when the first one is gone.
#[test]
fn who_got_a_second_chance_keeps_it() {
    let mut lab = Lab::new(3);
    lab.service(&[ingress(Protocol::Tcp, 8080, 80)], &[1, 2]);
    lab.tasks[0].state = EndpointState::Draining;
    lab.apply_on(1).unwrap();
    let to = lab.nodes[0].underlay;
    let mut streams: Vec<_> = (0..16).map(|_| lab.client.run(|| TcpStream::connect((to, 8080))).unwrap()).collect();
    let other = lab.tasks[1].addr;
    for stream in &mut streams {
        assert_eq!(Answer::parse(&ask_on(stream).unwrap()).server, other);
    }
    lab.tasks.remove(0);
    lab.apply();
    for stream in &mut streams {
        assert_eq!(Answer::parse(&ask_on(stream).unwrap()).server, other, "the first task is gone");
    }
    // And when its number has been given to somebody else.
    let service = lab.services[0].id.clone();
    lab.task(&service, 1);
    lab.apply();
    for stream in &mut streams {
        assert_eq!(Answer::parse(&ask_on(stream).unwrap()).server, other, "its number is another's");
    }
}
