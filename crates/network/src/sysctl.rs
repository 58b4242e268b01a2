//! Kernel settings. `/proc/sys/net` shows the namespace of the thread that opens a file in it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::NetworkError;

/// Writes a setting, if it is not so already: a container's /proc/sys may be read-only and right.
pub(crate) fn set(name: &str, value: &str) -> Result<(), NetworkError> {
    let path = format!("/proc/sys/{name}");
    if fs::read_to_string(&path).is_ok_and(|now| now.split_whitespace().eq(value.split_whitespace())) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| NetworkError::Sysctl {
        name: name.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Writes a setting that a kernel may lack, such as those of IPv6.
pub(crate) fn set_if_present(name: &str, value: &str) -> Result<(), NetworkError> {
    match set(name, value) {
        Err(NetworkError::Sysctl { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Clients on the node itself: packets with loopback addresses may leave `lo`, and the node's own may come in there. IPv6 takes both on
/// `lo` by itself.
pub(crate) fn prepare_node() -> Result<(), NetworkError> {
    set("net/ipv4/conf/lo/route_localnet", "1")?;
    set("net/ipv4/conf/lo/accept_local", "1")
}

/// A device of skep's in the node's namespace: whatever source address may come in, it speaks no IPv6 of its own, and the node's routes may be
/// asked about what comes through it.
pub(crate) fn prepare_own_device(name: &str) -> Result<(), NetworkError> {
    set(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
    set(&format!("net/ipv4/conf/{name}/accept_local"), "1")?;
    set(&format!("net/ipv4/conf/{name}/forwarding"), "1")?;
    set_if_present(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    set_if_present(&format!("net/ipv6/conf/{name}/forwarding"), "1")
}

/// Whether the kernel has IPv6: built in, loaded, and not booted with `ipv6.disable=1`.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf").exists()
}

/// A task's namespace: low ports and ping without privilege, and its IPv6 devices as [`quiet`] wants them.
pub(crate) fn prepare_task() -> Result<(), NetworkError> {
    set("net/ipv4/ip_unprivileged_port_start", "0")?;
    set("net/ipv4/ping_group_range", "0 2147483647")?;
    ["all", "default"].into_iter().try_for_each(quiet)
}

/// IPv6 in a task's namespace that has no link yet, whatever the machine's default is. Afterwards it is the task's own affair: a sysctl
/// of its container may switch it off.
pub(crate) fn enable_ipv6() -> Result<(), NetworkError> {
    ["all", "default"]
        .into_iter()
        .try_for_each(|device| set_if_present(&format!("net/ipv6/conf/{device}/disable_ipv6"), "0"))
}

/// Prepares a task's device for IPv6; whether it speaks IPv6 at all.
pub(crate) fn prepare_task_device(name: &str) -> Result<bool, NetworkError> {
    quiet(name)?;
    let disabled = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"));
    // No such file: no IPv6, or an MTU that is too small for it.
    Ok(disabled.is_ok_and(|disabled| disabled.trim() == "0"))
}

/// A task's addresses and routes come from skep alone, and may be used at once: nobody else is on the link.
fn quiet(device: &str) -> Result<(), NetworkError> {
    ["accept_ra", "accept_dad", "dad_transmits"]
        .into_iter()
        .try_for_each(|name| set_if_present(&format!("net/ipv6/conf/{device}/{name}"), "0"))
}
