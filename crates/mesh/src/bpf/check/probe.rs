//! Asks the running kernel. Devices and qdiscs are tried out in a network namespace that nobody else sees and that ends with the
//! question.

use std::io;
use std::os::fd::AsRawFd;
use std::thread;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::{Answer, Need};

/// Parts of rtnetlink(7) and of linux/pkt_sched.h that the C library's binding lacks.
const TCA_KIND: u16 = 1;
const IFLA_INFO_KIND: u16 = 1;
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
/// The first device of every namespace, `lo`.
const LOOPBACK: i32 = 1;

/// Whether the kernel has it.
pub(super) fn ask(need: Need) -> Answer {
    match need {
        Need::Maps => all([MapType::LruHash, MapType::HashOfMaps].map(|kind| of(is_map_supported(kind)))),
        Need::Programs => of(is_program_supported(ProgramType::SchedClassifier)),
        Need::Helpers => {
            let helpers = [BpfHelper::BPF_FUNC_redirect_peer, BpfHelper::BPF_FUNC_redirect_neigh];
            all(helpers.map(|helper| of(is_helper_supported(ProgramType::SchedClassifier, helper))))
        }
        Need::Namespaces => alone(|| Ok(())),
        // Without a peer's name both ends are made; without an identifier no VXLAN device is.
        Need::Veth => alone(|| request(libc::RTM_NEWLINK, &link("veth"))),
        Need::Vxlan => alone(|| request(libc::RTM_NEWLINK, &link("vxlan"))),
        Need::Clsact => alone(add_clsact),
        Need::Classifier => alone(|| {
            add_clsact()?;
            request(libc::RTM_NEWTFILTER, &filter("bpf"))
        }),
    }
}

fn all(answers: [Answer; 2]) -> Answer {
    let [first, second] = answers;
    if first == Answer::Has { second } else { first }
}

/// What the library found out.
fn of<E: std::error::Error + 'static>(found: Result<bool, E>) -> Answer {
    match found {
        Ok(true) => Answer::Has,
        Ok(false) => Answer::Lacks,
        Err(error) => judge(cause(&error)),
    }
}

/// The kernel's answer below all that a library says about it.
fn cause(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(number) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(Errno::from_raw(number));
        }
        next = error.source();
    }
    None
}

fn judge(error: Option<Errno>) -> Answer {
    match error {
        Some(Errno::EPERM | Errno::EACCES) => Answer::Forbids,
        // bpf(2) itself is missing.
        Some(Errno::ENOSYS) => Answer::Lacks,
        _ => Answer::Unclear,
    }
}

/// Asks on a thread with a namespace of its own.
fn alone(question: impl FnOnce() -> Result<(), Errno> + Send) -> Answer {
    let inside = || match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => match question() {
            // It knows what it is asked for. What it says to a question that is not complete does not matter.
            Ok(()) | Err(Errno::EINVAL | Errno::EEXIST) => Answer::Has,
            // Devices, and qdiscs and classifiers, of unknown kinds.
            Err(Errno::EOPNOTSUPP | Errno::ENOENT) => Answer::Lacks,
            Err(error) => judge(Some(error)),
        },
        Err(Errno::EINVAL) => Answer::Lacks,
        Err(error) => judge(Some(error)),
    };
    thread::scope(|scope| scope.spawn(inside).join().unwrap_or(Answer::Unclear))
}

fn add_clsact() -> Result<(), Errno> {
    request(libc::RTM_NEWQDISC, &traffic_control(CLSACT, CLSACT_HANDLE, 0, "clsact"))
}

/// A device of this kind (struct ifinfomsg, and the kind inside of IFLA_LINKINFO).
fn link(kind: &str) -> Vec<u8> {
    let mut body = vec![0; 16];
    body.extend(attribute(libc::IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, kind.as_bytes())));
    body
}

/// A qdisc or filter of this kind on the loopback device (struct tcmsg).
fn traffic_control(parent: u32, handle: u32, info: u32, kind: &str) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(LOOPBACK.to_ne_bytes());
    for field in [handle, parent, info] {
        body.extend(field.to_ne_bytes());
    }
    body.extend(attribute(TCA_KIND, &[kind.as_bytes(), &[0]].concat()));
    body
}

/// A filter of this kind for packets of all protocols (ETH_P_ALL), at the first place.
fn filter(kind: &str) -> Vec<u8> {
    traffic_control(CLSACT_INGRESS, 0, (1 << 16) | u32::from(0x0003_u16.to_be()), kind)
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// Sends one request to make something, and returns the kernel's answer.
fn request(kind: u16, body: &[u8]) -> Result<(), Errno> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let length = u32::try_from(16 + body.len()).map_err(|_| Errno::E2BIG)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(u16::try_from(flags).map_err(|_| Errno::EINVAL)?.to_ne_bytes());
    // A number that nobody compares, and the kernel's port.
    message.extend([0; 8]);
    message.extend(body);
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // struct nlmsghdr, and struct nlmsgerr that begins with a negative error number, or zero.
    let number = answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match number {
        Some(0) => Ok(()),
        Some(number) => Err(Errno::from_raw(-number)),
        None => Err(Errno::EBADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_kernel_has_is_lacking() {
        assert_eq!(alone(|| request(libc::RTM_NEWLINK, &link("no-such-kind"))), Answer::Lacks);
        let qdisc = traffic_control(CLSACT, CLSACT_HANDLE, 0, "no-such-kind");
        assert_eq!(alone(|| request(libc::RTM_NEWQDISC, &qdisc)), Answer::Lacks);
        let filter = filter("no-such-kind");
        assert_eq!(alone(|| add_clsact().and_then(|()| request(libc::RTM_NEWTFILTER, &filter))), Answer::Lacks);
    }

    #[test]
    fn this_machine_has_all() {
        for need in Need::ALWAYS.into_iter().chain(Need::WITHOUT_TCX) {
            assert_eq!(ask(need), Answer::Has, "{need:?}");
        }
    }

    #[test]
    fn refusals_are_told_from_lacks() {
        let refused: Result<bool, _> = Err(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(of(refused), Answer::Forbids);
        assert_eq!(of::<io::Error>(Ok(false)), Answer::Lacks);
        assert_eq!(of::<io::Error>(Err(io::Error::from_raw_os_error(libc::ENOMEM))), Answer::Unclear);
    }
}
