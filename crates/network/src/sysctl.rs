//! Kernel settings. `/proc/sys/net` shows the namespace of the thread that opens a file in it.

use std::fs;
use std::io::ErrorKind;

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

/// Clients on the node itself: packets with loopback addresses may leave `lo`, and the node's own may come in there.
pub(crate) fn prepare_node() -> Result<(), NetworkError> {
    set("net/ipv4/conf/lo/route_localnet", "1")?;
    set("net/ipv4/conf/lo/accept_local", "1")
}

/// A device of skep's in the node's namespace: whatever source address may come in, and it speaks no IPv6 of its own.
pub(crate) fn prepare_own_device(name: &str) -> Result<(), NetworkError> {
    set(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
    set(&format!("net/ipv4/conf/{name}/accept_local"), "1")?;
    set(&format!("net/ipv4/conf/{name}/forwarding"), "1")?;
    set_if_present(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")
}

/// A task's namespace: low ports and ping without privilege, and no second's wait before an IPv6 address may be used.
pub(crate) fn prepare_task() -> Result<(), NetworkError> {
    set("net/ipv4/ip_unprivileged_port_start", "0")?;
    set("net/ipv4/ping_group_range", "0 2147483647")?;
    for device in ["all", "default"] {
        set_if_present(&format!("net/ipv6/conf/{device}/accept_dad"), "0")?;
        set_if_present(&format!("net/ipv6/conf/{device}/dad_transmits"), "0")?;
    }
    Ok(())
}
