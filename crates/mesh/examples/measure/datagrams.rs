//! Small datagrams: how many arrive.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::Netns;

/// Bytes in each.
const SIZE: usize = 64;
/// Sent between two looks at the clock.
const BURST: u64 = 64;

/// Counts what arrives, for as long as the process lives.
#[derive(Clone)]
pub(crate) struct Sink(Arc<AtomicU64>);

impl Sink {
    pub(crate) fn start(ns: &Netns, addr: Ipv4Addr, port: u16) -> Self {
        let socket = ns.run(|| UdpSocket::bind((addr, port))).unwrap();
        let sink = Self(Arc::default());
        let count = sink.0.clone();
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while socket.recv(&mut buffer).is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        sink
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sends as fast as one sender can; returns how many arrived per second. What is lost on the way is not counted, and costs the sender as
/// much time.
pub(crate) fn flood(client: &Netns, to: SocketAddrV4, sink: &Sink, seconds: u64) -> f64 {
    client.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect(to).unwrap();
        let (start, before) = (Instant::now(), sink.count());
        while start.elapsed() < Duration::from_secs(seconds) {
            for _ in 0..BURST {
                // A full queue or a refusal is what would be counted as missing.
                let _ = socket.send(&[0; SIZE]);
            }
        }
        let arrived = sink.count() - before;
        assert!(arrived > 0, "no datagram to {to} arrived");
        arrived as f64 / start.elapsed().as_secs_f64()
    })
}
