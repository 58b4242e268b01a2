//! Which system calls a container may make: Docker's default profile, compiled for this machine's processor.
//!
//! Two filters are loaded. The first, compiled by seccompiler, lets known calls pass and refuses the others with `EPERM`. The
//! second answers `ENOSYS` to calls for which programs have a way around: `clone3`, whose arguments no filter can see, and calls
//! that are younger than the profile. It is loaded last because of two refusals the later filter's counts (seccomp(2)).
//!
//! The filters are loaded without `no_new_privs`, so that setuid programs go on working; the kernel allows that to a process
//! with `CAP_SYS_ADMIN`, which the container's first process still has then (see `confine`).
//!
//! Only the processor's own system calls are known: 32-bit programs are killed on a 64-bit machine.

mod oci;
mod profile;

use std::collections::BTreeMap;
use std::io;

use caps::{Capability, CapsHashSet};
pub(crate) use oci::profile as oci_profile;
use profile::Call;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// The last system call that the profile knows about, `mseal`; the numbers from 424 on are the same on all processors.
const NEWEST: u32 = 462;

/// The flags of `clone(2)` that make namespaces.
const NAMESPACES: u64 = 0x7e02_0000;

/// What `personality(2)` may be asked for: Linux, as a 32-bit machine, with old addresses, both, and what there is.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Compiled filters, in the order in which they are to be loaded.
#[derive(Debug, Clone)]
pub(crate) struct Filters([BpfProgram; 2]);

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

impl Filters {
    /// The filters for a container that may have `bounding`: some calls are as harmless as the capability that they need.
    pub(crate) fn compile(bounding: &CapsHashSet) -> Result<Self, String> {
        let rules = rules(bounding).map_err(|e| e.to_string())?;
        let refusal = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let filter = SeccompFilter::new(rules, refusal, SeccompAction::Allow, ARCH).map_err(|e| e.to_string())?;
        let known = BpfProgram::try_from(filter).map_err(|e| e.to_string())?;
        Ok(Self([known, unknown(bounding.contains(&Capability::CAP_SYS_ADMIN))]))
    }

    /// Puts the calling thread under the filters, for good. Needs `CAP_SYS_ADMIN`.
    pub(crate) fn load(&self) -> io::Result<()> {
        for program in &self.0 {
            let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
            // seccompiler's type and libc's have the layout that the kernel demands; the kernel only reads.
            let prog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
            // SAFETY: the program is valid for the call, and its length is that of the array.
            if unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const prog) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

fn always() -> impl Iterator<Item = &'static Call> {
    profile::ALWAYS.iter().copied().flatten()
}

/// Calls that come with a capability.
fn with(bounding: &CapsHashSet) -> impl Iterator<Item = &'static Call> {
    let theirs = profile::WITH.iter().filter(|(capability, _)| bounding.contains(capability));
    theirs.flat_map(|(_, lists)| lists.iter().copied().flatten())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(bounding: &CapsHashSet) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = always().map(|(_, call)| (*call, Vec::new())).collect();
    let one = |arg, len, op, value| SeccompRule::new(vec![SeccompCondition::new(arg, len, op, value)?]);
    let mut personalities = Vec::new();
    for value in PERSONALITIES {
        personalities.push(one(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?);
    }
    rules.insert(libc::SYS_personality, personalities);
    let vsock = u64::from(libc::AF_VSOCK.unsigned_abs());
    rules.insert(libc::SYS_socket, vec![one(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, vsock)?]);
    let plain = one(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(NAMESPACES), 0)?;
    rules.insert(libc::SYS_clone, vec![plain]);
    // Last, because a call that is allowed as a whole replaces one that is allowed with some arguments.
    rules.extend(with(bounding).map(|(_, call)| (*call, Vec::new())));
    // The second filter decides about these.
    rules.insert(libc::SYS_clone3, Vec::new());
    let young = i64::from(NEWEST) + 1;
    rules.extend((young..young + 64).map(|call| (call, Vec::new())));
    Ok(rules)
}

/// `ENOSYS` for `clone3`, unless that is allowed, and for calls younger than the profile; everything else passes.
fn unknown(clone3: bool) -> BpfProgram {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const ABOVE: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    /// x32 calls, which are far above: the first filter refuses them.
    const FOREIGN: u32 = 0x4000_0000;
    let enosys = ERRNO | libc::ENOSYS.unsigned_abs();
    let to = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    // 435 is clone3 on every processor; no call has the number that stands for none.
    let clone3 = if clone3 { u32::MAX } else { 435 };
    vec![
        to(LOAD, 0, 0, 0),
        to(EQUAL, clone3, 3, 0),
        to(ABOVE, FOREIGN - 1, 1, 0),
        to(ABOVE, NEWEST, 1, 0),
        to(RETURN, ALLOW, 0, 0),
        to(RETURN, enosys, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn it_compiles_for_no_and_for_all_capabilities() {
        for bounding in [CapsHashSet::new(), caps::all()] {
            let filters = Filters::compile(&bounding).unwrap();
            assert!(filters.0.iter().all(|program| !program.is_empty() && program.len() < 4096));
        }
    }

    #[test]
    fn some_calls_come_with_their_capability() {
        let without = rules(&CapsHashSet::new()).unwrap();
        let with = rules(&CapsHashSet::from([Capability::CAP_SYS_ADMIN])).unwrap();
        assert!(!without.contains_key(&libc::SYS_mount) && with.contains_key(&libc::SYS_mount));
        assert!(!without[&libc::SYS_clone].is_empty() && with[&libc::SYS_clone].is_empty());
        assert!(!without.contains_key(&libc::SYS_keyctl) && !with.contains_key(&libc::SYS_keyctl));
    }

    /// Makes the calls in a child of its own, under the filters.
    #[test]
    fn the_kernel_does_as_the_profile_says() {
        use std::os::unix::process::CommandExt;
        let filters = Filters::compile(&CapsHashSet::new()).unwrap();
        let mut child = Command::new("/bin/true");
        let errno = |result: libc::c_long| if result < 0 { io::Error::last_os_error().raw_os_error() } else { None };
        let checks = move || {
            filters.load()?;
            // SAFETY: the calls are refused, or do nothing with these arguments.
            let got = unsafe {
                [
                    errno(libc::syscall(libc::SYS_keyctl, 0, 0, 0, 0, 0)),
                    errno(libc::syscall(libc::SYS_clone3, 0, 0)),
                    errno(libc::syscall(i64::from(NEWEST) + 1, 0, 0)),
                    errno(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNS)),
                    errno(libc::syscall(libc::SYS_socket, libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
                    errno(libc::syscall(libc::SYS_getppid)),
                ]
            };
            let (eperm, enosys) = (Some(libc::EPERM), Some(libc::ENOSYS));
            if got == [eperm, enosys, enosys, eperm, eperm, None] {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(1))
            }
        };
        // SAFETY: the closure makes system calls only.
        unsafe { child.pre_exec(checks) };
        assert!(child.status().expect("this test needs root; and the calls must have the expected results").success());
    }
}
