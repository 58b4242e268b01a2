//! The data plane as the rest of the house sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use skep_model::TaskId;

use crate::flow::{FlowTable, Usage};
use crate::table::{FrontendKey, Tables};

/// A data plane that can be brought to a state, asked for its counters, and removed.
///
/// [`apply`](Self::apply) is level-triggered: it compares what is there with what should be there and repairs the
/// difference, whoever made it. Calling it with the same tables again changes nothing.
pub trait Datapath: Send {
    /// Makes the data plane be what `tables` says.
    ///
    /// # Errors
    /// The first thing that could not be done, after everything else has been tried. Applying again continues.
    fn apply(&mut self, tables: &Tables) -> Result<Applied, DatapathError>;

    /// What has been counted since the data plane was made; it survives restarts of the daemon.
    ///
    /// # Errors
    /// When the maps cannot be read.
    fn counters(&self) -> Result<Counters, DatapathError>;

    /// What reads its flows.
    ///
    /// # Errors
    /// When the maps cannot be opened.
    fn flow_table(&self) -> Result<Box<dyn FlowTable>, DatapathError>;

    /// How full the tables are, but for that of flows.
    ///
    /// # Errors
    /// When the maps cannot be read.
    fn usage(&self) -> Result<Vec<Usage>, DatapathError> {
        Ok(Vec::new())
    }

    /// Tasks that new flows pass over at present: they, or their whole node, have left somebody without an answer a few seconds ago.
    ///
    /// # Errors
    /// When the maps cannot be read.
    fn passed_over(&self) -> Result<BTreeSet<TaskId>, DatapathError> {
        Ok(BTreeSet::new())
    }

    /// Members for whose clients a probe of this node has come back (see [`PROBE_PORT`](crate::PROBE_PORT)), and how long ago.
    ///
    /// # Errors
    /// When the maps cannot be read.
    fn proofs(&self) -> Result<BTreeMap<IpAddr, Duration>, DatapathError> {
        Ok(BTreeMap::new())
    }

    /// Detaches and removes everything, for a node that leaves its swarm.
    ///
    /// # Errors
    /// The first thing that could not be removed, after everything else has been.
    fn close_and_remove(self: Box<Self>) -> Result<(), DatapathError>;
}

/// What one [`Datapath::apply`] changed. All zero when everything already was as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Map entries written.
    pub written: usize,
    /// Map entries removed.
    pub removed: usize,
    /// Devices that a program was attached to.
    pub attached: usize,
    /// Devices that a program was taken off, or that had vanished.
    pub detached: usize,
}

impl Applied {
    /// Whether anything was changed.
    #[must_use]
    pub fn changed(&self) -> bool {
        *self != Self::default()
    }
}

/// Everything that is counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// Per published port, as seen by the node that the client asked.
    pub ports: BTreeMap<FrontendKey, Traffic>,
    /// Per backend, on all of its networks, as seen by the node that the client asked. Only backends that are still known.
    pub backends: BTreeMap<TaskId, Traffic>,
    /// Per task of this node, whichever node was asked.
    pub tasks: BTreeMap<TaskId, Traffic>,
    /// Packets that were not passed on, by reason.
    pub drops: BTreeMap<DropReason, u64>,
    /// Things that happened to flows.
    pub events: BTreeMap<Event, u64>,
}

/// Flows, packets and bytes (of IP packets) since the backend became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Flows that were opened.
    pub flows: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

macro_rules! counted {
    ($(#[$about:meta])* $kind:ident: $($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $kind { $($(#[$doc])* $name,)* }

        impl $kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The index in the kernel's counters.
            #[must_use]
            pub fn number(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }

            /// For people and for metric labels.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

counted! {
    /// Why a packet was not passed on.
    DropReason:
    /// Shorter than its headers say.
    Malformed = 0, "malformed";
    /// A service without a ready backend; answered with a reset or port-unreachable.
    NoBackend = 1, "no_backend";
    /// An established flow whose backend is gone; answered with a reset.
    BackendGone = 2, "backend_gone";
    /// An overlay packet from an address that is no member's.
    NotAMember = 3, "not_a_member";
    /// A task used an address that is not its own.
    Spoofed = 4, "spoofed";
    /// A reply of a flow that nothing is known about.
    UnknownFlow = 5, "unknown_flow";
    /// An overlay packet for a task that does not run here.
    UnknownTask = 6, "unknown_task";
    /// Every port tried for a colliding flow was taken.
    NoPort = 7, "no_port";
    /// A fragment whose first part was not seen.
    Fragment = 8, "fragment";
    /// The packet could not be rewritten (kernel helper failed).
    Rewrite = 9, "rewrite";
    /// By IPv6, for a task whose kernel has none; answered with a reset or port-unreachable.
    NoIpv6 = 10, "no_ipv6";
    /// From a task to an address of a network that it is not on, or to nobody's; answered with a reset or host-unreachable.
    OtherNetwork = 11, "other_network";
    /// From a task that may not talk to the world outside, or of a kind that cannot; answered with prohibited.
    NoWayOut = 12, "no_way_out";
    /// From a task to where the node itself has no route, or no address to go by; answered with net-unreachable.
    NoRoute = 13, "no_route";
}

counted! {
    /// What happened to a flow besides its packets.
    Event:
    /// A client's port was changed towards the task, because another flow has it there.
    PortChanged = 0, "port_changed";
    /// A flow was passed on by an owner whose task takes no new ones.
    SecondChance = 1, "second_chance";
    /// A SYN came again, and another backend was chosen.
    ChosenAgain = 2, "chosen_again";
    /// A connection that a task's kernel still remembered was ended there, so that a new one could have its ports.
    TimeWaitEnded = 3, "time_wait_ended";
    /// A packet was too big for the overlay, and its sender was told so.
    TooBig = 4, "too_big";
    /// A backend that does not answer was passed over.
    Suspected = 5, "suspected";
    /// A task began to talk to the world outside.
    WentOut = 6, "went_out";
    /// A task's packet to the world outside came to the end of its hops at this node, and the task was told so.
    HopsExceeded = 7, "hops_exceeded";
}

/// What keeps the data plane from being as it should be.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// Not root, or a root without the needed capabilities.
    #[error("the routing mesh needs root (CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN): start the daemon as root")]
    NotPermitted,
    /// Too old a kernel.
    #[error("the routing mesh needs Linux 5.15 or newer, this is {found}")]
    KernelTooOld {
        /// What `uname` says.
        found: String,
    },
    /// The kernel was built without something.
    #[error("this kernel lacks {what}: the routing mesh needs a kernel built with {config}")]
    KernelLacks {
        /// In words.
        what: &'static str,
        /// The option's name.
        config: &'static str,
    },
    /// Pinned maps of another layout which traffic still goes through.
    #[error(
        "the maps in {dir} have layout {found}, this skep knows layout {known}, and traffic goes through them: run the skep that made \
         them, or leave the swarm with it first"
    )]
    Layout {
        /// Where they are pinned.
        dir: PathBuf,
        /// Their layout.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The directory for pins cannot be used.
    #[error("cannot keep eBPF objects in {dir}: {source}")]
    PinDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel refused a program.
    #[error("the kernel refused the eBPF program {program}: {reason}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The error with the verifier's last words.
        reason: String,
    },
    /// A map could not be made, read or written.
    #[error("map {map}: {reason}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's answer.
        reason: String,
    },
    /// A program could not be attached or detached.
    #[error("device {ifindex}: cannot attach {program}: {reason}")]
    Attach {
        /// The device.
        ifindex: u32,
        /// The program.
        program: &'static str,
        /// The kernel's answer.
        reason: String,
    },
    /// More of something than the maps hold.
    #[error("{count} {what} do not fit: the mesh was opened for {room}")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many are wanted.
        count: usize,
        /// How many fit.
        room: usize,
    },
}
