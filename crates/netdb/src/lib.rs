//! What runs where right now, as the nodes tell each other.
//!
//! Every node owns one table of endpoint records and is the only one to write it; it stamps the table with a version of its own
//! counting. Whoever hears of a table keeps the newest version and forgets the others, so tables may arrive in any order, twice, or
//! not at all for a while, and everybody ends up with the same. [`Tables`] is that rule as a plain value: no clock, no sockets.
//! [`NetDb`] shares it within a daemon: the agent [publishes](NetDb::publish) the node's own endpoints, and the mesh follows the [`View`].
//!
//! Tables travel as [`Delta`]s, by gossip. [`gossip::Gossip`] is a node's part in that as a plain value too: who answers, what is passed on to whom,
//! what is missing. [`Driver`] owns the sockets (7946, UDP and TCP) and the clock, and does what it says. `docs/discovery.md` has the whole.
//!
//! A node that does not answer weighs nothing for new flows; one that managers believe dead is hidden with its endpoints, and not forgotten: when it is
//! back, so are they. Nothing here asks a manager: what they know comes in by [`Contacts`] and [`NetDb::set_members`].

#![forbid(unsafe_code)]

mod driver;
mod error;
mod exchange;
pub mod gossip;
mod handle;
mod held;
mod seal;
mod tables;
mod view;
mod wire;

pub use driver::{Contacts, Driver, DriverHandle, GOSSIP_PORT, Listen};
pub use error::{NetDbError, Unreadable};
pub use handle::NetDb;
pub use held::{Delta, ShortKey};
pub use tables::{Merged, Tables};
pub use view::{Endpoints, Located, View};
