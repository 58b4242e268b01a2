//! Whether what this node sends or gets may have to be encrypted, asked of the kernel by its netlink family for IPsec (`linux/xfrm.h`).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::sys::socket::SockFlag;

use crate::dump;
use crate::error::NetworkError;

const XFRM_MSG_GETPOLICY: u16 = 0x15;
/// `struct xfrm_userpolicy_id`.
const QUESTION: [u8; 64] = [0; 64];
/// Where `struct xfrm_userpolicy_info` has the policy's direction.
const DIRECTION: usize = 160;
const XFRM_POLICY_IN: u8 = 0;
const XFRM_POLICY_OUT: u8 = 1;

/// A socket of the family; nothing on a kernel without it.
pub(crate) fn open(flags: SockFlag) -> io::Result<Option<OwnedFd>> {
    let kind = libc::SOCK_RAW | (flags | SockFlag::SOCK_CLOEXEC).bits();
    // SAFETY: the call takes no pointers; nix does not know the family.
    let descriptor = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_XFRM) };
    if descriptor >= 0 {
        // SAFETY: the kernel has just given it to us, and to nobody else.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) }));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
        error => Err(error),
    }
}

/// Whether the namespace has a policy for packets that leave it or are for it.
///
/// # Errors
/// When the kernel cannot answer.
pub(crate) fn has_policies() -> Result<bool, NetworkError> {
    let failed = |source: io::Error| NetworkError::netlink("ask for policies of IPsec", source);
    let Some(socket) = open(SockFlag::empty()).map_err(failed)? else { return Ok(false) };
    let mut found = false;
    let mut look = |policy: &[u8]| found |= matches!(policy.get(DIRECTION), Some(&(XFRM_POLICY_IN | XFRM_POLICY_OUT)));
    dump::ask(&socket, XFRM_MSG_GETPOLICY, &QUESTION, &mut look).map_err(failed)?;
    Ok(found)
}
