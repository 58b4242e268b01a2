//! Whether this machine can run the data plane at all, said in one sentence if not.
//!
//! What is asked is the kernel, not its configuration: a file that says how it was built may be missing, and a module that it was built
//! with may not be installed.

mod probe;

use crate::datapath::DatapathError;

/// Oldest kernel with everything that the programs use.
const OLDEST: (u32, u32) = (5, 15);

/// First kernel where several programs share a device in a known order, and a link to one of them can be pinned.
const TCX: (u32, u32) = (6, 6);

/// What the data plane needs of a kernel besides its version, in the order in which it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Maps that the programs share with the daemon.
    Maps,
    /// Programs that see packets.
    Programs,
    /// What these programs call.
    Helpers,
    /// Nodes' tasks live in them, and it takes one to ask for the rest.
    Namespaces,
    /// A task's cable.
    Veth,
    /// The way between nodes.
    Vxlan,
    /// Where programs are attached before TCX.
    Clsact,
    /// How they are attached there.
    Classifier,
}

impl Need {
    const ALWAYS: [Self; 6] = [Self::Maps, Self::Programs, Self::Helpers, Self::Namespaces, Self::Veth, Self::Vxlan];
    const WITHOUT_TCX: [Self; 2] = [Self::Clsact, Self::Classifier];

    /// What is missing, and what has it.
    fn lack(self) -> DatapathError {
        let (what, config) = match self {
            Self::Maps => ("eBPF maps", "CONFIG_BPF_SYSCALL"),
            Self::Programs => ("eBPF programs for packets", "CONFIG_BPF_SYSCALL and CONFIG_NET"),
            Self::Helpers => ("bpf_redirect_peer or bpf_redirect_neigh", "CONFIG_NET and CONFIG_INET"),
            Self::Namespaces => ("network namespaces", "CONFIG_NET_NS"),
            Self::Veth => ("virtual Ethernet pairs", "CONFIG_VETH (its module, veth, may not be installed)"),
            Self::Vxlan => ("VXLAN", "CONFIG_VXLAN (its module, vxlan, may not be installed)"),
            Self::Clsact => {
                ("the clsact qdisc", "CONFIG_NET_SCH_INGRESS (its module, sch_ingress, may not be installed)")
            }
            Self::Classifier => {
                ("the eBPF classifier of tc", "CONFIG_NET_CLS_BPF (its module, cls_bpf, may not be installed)")
            }
        };
        DatapathError::KernelLacks { what, config }
    }
}

/// What a kernel says about a need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Has,
    Lacks,
    /// It does not let this process ask.
    Forbids,
    /// It was busy, or out of memory. Whoever needs it will see.
    Unclear,
}

/// Whether programs can be attached by TCX links.
pub(super) fn has_tcx() -> bool {
    knows_tcx(&release())
}

/// Whether the routing mesh can work here. Loads modules that are missing, as using them would.
///
/// # Errors
/// What is missing: privileges, a newer kernel, or an option that the kernel was built without.
pub fn check_kernel() -> Result<(), DatapathError> {
    judge(&release(), nix::unistd::geteuid().is_root(), probe::ask)
}

fn release() -> String {
    nix::sys::utsname::uname().map_or_else(|_| String::new(), |u| u.release().to_string_lossy().into_owned())
}

/// A release without a number at its beginning is somebody's own, who knows what it is.
fn judge(release: &str, is_root: bool, ask: impl Fn(Need) -> Answer) -> Result<(), DatapathError> {
    if version(release).is_some_and(|v| v < OLDEST) {
        return Err(DatapathError::KernelTooOld { found: release.to_owned() });
    }
    if !is_root {
        return Err(DatapathError::NotPermitted);
    }
    let older: &[Need] = if knows_tcx(release) { &[] } else { &Need::WITHOUT_TCX };
    for &need in Need::ALWAYS.iter().chain(older) {
        match ask(need) {
            Answer::Has | Answer::Unclear => {}
            Answer::Lacks => return Err(need.lack()),
            Answer::Forbids => return Err(DatapathError::NotPermitted),
        }
    }
    Ok(())
}

fn knows_tcx(release: &str) -> bool {
    version(release).is_some_and(|v| v >= TCX)
}

/// Major and minor number at the beginning of a release's name.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said on a kernel of this release that has everything but one thing.
    fn said_without(release: &str, lacking: Need) -> Option<String> {
        let ask = |need| if need == lacking { Answer::Lacks } else { Answer::Has };
        judge(release, true, ask).err().map(|error| error.to_string())
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("6.18.44-fc-v769"), Some((6, 18)));
        assert_eq!(version("5.15.0-25-generic"), Some((5, 15)));
        assert_eq!(version("next"), None);
    }

    #[test]
    fn this_machine_passes() {
        check_kernel().unwrap();
    }

    #[test]
    fn an_old_kernel_is_told_which_one_would_do() {
        let said = judge("5.10.0-30-amd64", true, |_| Answer::Has).unwrap_err().to_string();
        assert_eq!(said, "the routing mesh needs Linux 5.15 or newer, this is 5.10.0-30-amd64");
        assert!(judge("5.15.0", true, |_| Answer::Has).is_ok());
        assert!(judge("my-own", true, |_| Answer::Has).is_ok());
    }

    #[test]
    fn everything_that_is_missing_is_named_with_its_option() {
        let options = [
            (Need::Maps, "lacks eBPF maps", "CONFIG_BPF_SYSCALL"),
            (Need::Programs, "lacks eBPF programs", "CONFIG_BPF_SYSCALL"),
            (Need::Helpers, "lacks bpf_redirect_peer", "CONFIG_INET"),
            (Need::Namespaces, "lacks network namespaces", "CONFIG_NET_NS"),
            (Need::Veth, "lacks virtual Ethernet pairs", "CONFIG_VETH"),
            (Need::Vxlan, "lacks VXLAN", "CONFIG_VXLAN"),
            (Need::Clsact, "lacks the clsact qdisc", "CONFIG_NET_SCH_INGRESS"),
            (Need::Classifier, "lacks the eBPF classifier", "CONFIG_NET_CLS_BPF"),
        ];
        assert_eq!(options.len(), Need::ALWAYS.len() + Need::WITHOUT_TCX.len());
        for (need, what, option) in options {
            let said = said_without("6.1.0-56-amd64", need).unwrap_or_else(|| panic!("{need:?} is not missed"));
            assert!(said.contains(what) && said.contains(option), "{said}");
        }
    }

    #[test]
    fn clsact_is_not_missed_where_there_is_something_better() {
        for need in Need::WITHOUT_TCX {
            assert_eq!(said_without("6.6.0", need), None);
        }
        assert!(said_without("6.6.0", Need::Vxlan).is_some());
    }

    /// Numbers of the helpers that an ELF file's programs call: instructions of eight bytes with opcode 0x85 (call) whose source register
    /// is 0 (a helper, and not a function of the program).
    fn helpers(object: &[u8]) -> Vec<u32> {
        let number = |at: usize, length: usize| {
            object[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        };
        let (table, size, count) = (number(40, 8), number(58, 2), number(60, 2));
        let headers = (0..count).map(|n| table + n * size);
        // Flags: the section has instructions.
        let code = headers.filter(|at| number(at + 8, 8) & 4 != 0).map(|at| (number(at + 24, 8), number(at + 32, 8)));
        let instructions = code.flat_map(|(begin, length)| object[begin..begin + length].chunks_exact(8));
        instructions
            .filter(|i| i[0] == 0x85 && i[1] >> 4 == 0)
            .map(|i| u32::from_le_bytes([i[4], i[5], i[6], i[7]]))
            .collect()
    }

    #[test]
    fn no_program_calls_a_helper_that_the_oldest_kernel_lacks() {
        /// `bpf_task_pt_regs`, the last one of Linux 5.15.
        const LAST: u32 = 175;
        let called = helpers(super::super::programs::OBJECT);
        assert!(called.contains(&1), "no lookup in a map, so no program was read: {called:?}");
        let newer: Vec<_> = called.iter().filter(|number| **number > LAST).collect();
        assert!(newer.is_empty(), "helpers of kernels after 5.15: {newer:?}");
    }

    #[test]
    fn who_may_not_ask_is_told_so() {
        let nobody = judge("6.1.0", false, |_| Answer::Lacks);
        assert!(matches!(nobody, Err(DatapathError::NotPermitted)), "{nobody:?}");
        let confined = judge("6.1.0", true, |_| Answer::Forbids);
        assert!(matches!(confined, Err(DatapathError::NotPermitted)), "{confined:?}");
    }

    #[test]
    fn what_cannot_be_found_out_does_not_stop_anybody() {
        assert!(judge("6.1.0", true, |_| Answer::Unclear).is_ok());
    }
}
