//! The lab's namespaces and the cables between them.

use std::thread;

use skep_network::{Namespace, NetworkError, Wiring};

use crate::error::LabError;
use crate::place::Place;
use crate::state::State;

/// The namespace that holds the two switches.
const FABRIC: &str = "fabric";
const SWITCHES: [&str; 2] = ["br0", "br1"];
const LINKS: [&str; 2] = ["eth0", "eth1"];

/// Makes everything.
pub(crate) fn build(state: &State) -> Result<(), LabError> {
    wire(async || {
        let fabric = Namespace::create(&state.net_path(FABRIC))?;
        let wiring = Wiring::inside(&fabric)?;
        for switch in SWITCHES {
            wiring.add_bridge(switch).await?;
        }
        for place in state.places() {
            connect(state, &wiring, place).await?;
        }
        Ok(())
    })
}

async fn connect(state: &State, fabric: &Wiring, place: Place) -> Result<(), NetworkError> {
    let name = place.to_string();
    Namespace::create_uts(&state.uts_path(&name), &name)?;
    let namespace = Namespace::create(&state.net_path(&name))?;
    let inside = Wiring::inside(&namespace)?;
    let ports = SWITCHES.into_iter().zip(LINKS).zip(place.addresses(state.subnet, state.families));
    for (port, ((switch, link), addresses)) in ports.enumerate() {
        fabric.add_cable(&cable(place, port), switch, &namespace, link).await?;
        for (address, prefix_len) in addresses {
            inside.add_address(link, address, prefix_len).await?;
        }
    }
    Ok(())
}

/// Gives a node another namespace, without anything in it but new cables: as after a start of the machine.
pub(crate) fn renew(state: &State, node: u8) -> Result<(), LabError> {
    wire(async || {
        let fabric = Wiring::inside(&Namespace::open(&state.net_path(FABRIC))?)?;
        let place = Place::Node(node);
        for port in 0..SWITCHES.len() {
            fabric.remove(&cable(place, port)).await?;
        }
        Namespace::delete(&state.uts_path(&place.to_string()))?;
        Namespace::delete(&state.net_path(&place.to_string()))?;
        connect(state, &fabric, place).await
    })
}

/// The end of a place's cable at the switch.
fn cable(place: Place, port: usize) -> String {
    format!("{place}-{port}")
}

/// Whether a cable carries anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cable {
    Cut,
    Joined,
}

/// Pulls both cables of a node, or plugs them in again.
pub(crate) fn set_cables(state: &State, node: u8, wanted: Cable) -> Result<(), LabError> {
    wire(async || {
        let wiring = Wiring::inside(&Namespace::open(&state.net_path(FABRIC))?)?;
        for port in 0..SWITCHES.len() {
            let cable = cable(Place::Node(node), port);
            match wanted {
                Cable::Cut => wiring.lower(&cable).await?,
                Cable::Joined => wiring.raise(&cable).await?,
            }
        }
        Ok(())
    })
}

/// Runs on a thread and a runtime of its own, so that a lab can be used from inside and from outside of one.
fn wire(work: impl AsyncFnOnce() -> Result<(), NetworkError> + Send) -> Result<(), LabError> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LabError::Worker)?;
        runtime.block_on(work()).map_err(LabError::Network)
    };
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("lab wiring".into()).spawn_scoped(scope, run);
        worker.map_err(LabError::Worker)?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
