//! The same profile as a bundle has it, for runtimes that compile it themselves.

use std::collections::BTreeSet;

use caps::{Capability, CapsHashSet};
use serde_json::{Value, json};

use super::{NAMESPACES, PERSONALITIES, always, with};

#[cfg(target_arch = "x86_64")]
const ARCH: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const ARCH: &str = "SCMP_ARCH_AARCH64";

/// `linux.seccomp` for a container that may have `bounding`. A runtime leaves out the calls that its library does not know, and answers `ENOSYS`
/// to those that are younger than all of them.
pub(crate) fn profile(bounding: &CapsHashSet) -> Value {
    let allowed: BTreeSet<&str> = always().chain(with(bounding)).map(|(name, _)| plain(name)).collect();
    let allow = |names: Value, args: Value| json!({ "names": names, "action": "SCMP_ACT_ALLOW", "args": args });
    let argument = |value: u64, op: &str| json!([{ "index": 0, "value": value, "op": op }]);
    let mut calls = vec![allow(json!(allowed), json!([]))];
    calls.extend(PERSONALITIES.map(|value| allow(json!(["personality"]), argument(value, "SCMP_CMP_EQ"))));
    let vsock = u64::from(libc::AF_VSOCK.unsigned_abs());
    calls.push(allow(json!(["socket"]), argument(vsock, "SCMP_CMP_NE")));
    if !bounding.contains(&Capability::CAP_SYS_ADMIN) {
        let plain = json!([{ "index": 0, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }]);
        calls.push(allow(json!(["clone"]), plain));
        calls.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS, "args": [] }));
    }
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM, "architectures": [ARCH], "syscalls": calls })
}

fn plain(name: &str) -> &str {
    name.strip_prefix("SYS_").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_the_same_as_the_compiled_one() {
        let without = profile(&CapsHashSet::new()).to_string();
        let with = profile(&CapsHashSet::from([Capability::CAP_SYS_ADMIN])).to_string();
        assert!(!without.contains("\"mount\"") && with.contains("\"mount\""));
        assert!(without.contains("SCMP_CMP_MASKED_EQ") && !with.contains("SCMP_CMP_MASKED_EQ"));
        assert!(without.contains("\"mseal\"") && without.contains("\"openat\"") && !without.contains("SYS_"));
        // It is what a bundle may have.
        serde_json::from_str::<oci_spec::runtime::LinuxSeccomp>(&without).unwrap();
    }
}
