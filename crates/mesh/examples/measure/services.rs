//! The same path while few, many and very many services are published.

use crate::figures::{Figure, Samples};
use crate::lab::Lab;
use crate::paths::{Effort, Path};
use crate::programs::{Clock, Spent};
use crate::skep::Swarm;

pub(crate) const ONE: &str = "1 service";
pub(crate) const THOUSAND: &str = "1,000 services";
pub(crate) const TEN_THOUSAND: &str = "10,000 services";

/// A swarm with so many services, and the path through its first node.
pub(crate) struct Published {
    swarm: Swarm,
    path: Path,
    /// The cable of its task.
    task: String,
}

impl Published {
    /// Swarms on the nodes from `first` on, with one, a thousand and ten thousand services.
    pub(crate) fn all(lab: &mut Lab, first: usize) -> Vec<Self> {
        let counts = [(ONE, 1), (THOUSAND, 1_000), (TEN_THOUSAND, 10_000)];
        let made = |(n, (name, count))| (name, Swarm::new(lab, first + 2 * n, count));
        let swarms: Vec<_> = counts.into_iter().enumerate().map(made).collect();
        let mut all = Vec::new();
        for ((name, swarm), number) in swarms.into_iter().zip(130..) {
            swarm.apply(lab);
            let server = swarm.server(lab);
            let path = swarm.path(lab, name, swarm.asked, &server, number);
            let task = lab.tasks.iter().find(|t| t.node == swarm.owner).unwrap().veth.clone();
            all.push(Self { swarm, path, task });
        }
        all
    }

    /// Once as it is, and once on the kernel's clock.
    pub(crate) fn measure(&self, lab: &Lab, effort: Effort, samples: &mut Samples) {
        self.path.measure_requests(effort, samples);
        let clock = Clock::start();
        let before = self.spent(lab);
        self.path.measure_requests(effort, &mut Samples::default());
        samples.add(self.path.name, Figure::Program, self.spent(lab).per_run_since(before));
        drop(clock);
    }

    /// By every program that packets of the path meet.
    fn spent(&self, lab: &Lab) -> Spent {
        let [asked, owner] = [self.swarm.asked, self.swarm.owner].map(|n| &lab.nodes[n].ns);
        Spent::at([(asked, "eth0"), (asked, "skep-vx"), (owner, "skep-vx"), (owner, &self.task)])
    }
}
