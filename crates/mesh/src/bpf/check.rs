//! Whether this machine can run the data plane at all, said in one sentence if not.

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{is_map_supported, is_program_supported};

use crate::datapath::DatapathError;

/// Oldest kernel with everything that the programs use.
const OLDEST: (u32, u32) = (5, 15);

/// First kernel where several programs share a device in a known order, and a link to one of them can be pinned.
const TCX: (u32, u32) = (6, 6);

fn release() -> String {
    nix::sys::utsname::uname().map_or_else(|_| String::new(), |u| u.release().to_string_lossy().into_owned())
}

/// Whether programs can be attached by TCX links.
pub(super) fn has_tcx() -> bool {
    version(&release()).is_some_and(|v| v >= TCX)
}

/// Whether the routing mesh can work here.
///
/// # Errors
/// What is missing: privileges, a newer kernel, or an option that the kernel was built without.
pub fn check_kernel() -> Result<(), DatapathError> {
    let found = release();
    if version(&found).is_some_and(|v| v < OLDEST) {
        return Err(DatapathError::KernelTooOld { found });
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(DatapathError::NotPermitted);
    }
    let lacks = |what, config| DatapathError::KernelLacks { what, config };
    let refused = |error: std::io::Error, what, config| match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => DatapathError::NotPermitted,
        _ => lacks(what, config),
    };
    let maps = is_map_supported(MapType::LruHash).and(is_map_supported(MapType::HashOfMaps));
    match maps {
        Ok(true) => {}
        Ok(false) => return Err(lacks("eBPF maps", "CONFIG_BPF_SYSCALL")),
        Err(error) => return Err(refused(std::io::Error::other(error), "eBPF maps", "CONFIG_BPF_SYSCALL")),
    }
    match is_program_supported(ProgramType::SchedClassifier) {
        Ok(true) => Ok(()),
        Ok(false) => Err(lacks("eBPF classifiers", "CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS")),
        Err(_) => Err(DatapathError::NotPermitted),
    }
}

/// Major and minor number at the beginning of a release's name.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
