//! The device list on cgroup v2, which knows no files for it: a small BPF program of our own, because libcontainer has none
//! without a C library. On cgroup v1 libcontainer writes the bundle's list into the devices hierarchy, and this does nothing.
//!
//! The list is the bundle's (`bundle::devices`): every device may be made with mknod, few may be opened.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::bundle::DEVICES;
use crate::cgroup;

/// An instruction of the kernel's BPF machine (`struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high.
    registers: u8,
    offset: i16,
    value: i32,
}

const fn instruction(code: u8, registers: u8, offset: i16, value: i32) -> Instruction {
    Instruction { code, registers, offset, value }
}

/// `BPF_LDX | BPF_MEM | BPF_W`
const LOAD: u8 = 0x61;
/// `BPF_ALU | BPF_AND | BPF_K`
const AND: u8 = 0x54;
/// `BPF_ALU | BPF_RSH | BPF_K`
const SHIFT: u8 = 0x74;
/// `BPF_ALU64 | BPF_MOV | BPF_X`
const COPY: u8 = 0xbf;
/// `BPF_ALU64 | BPF_MOV | BPF_K`
const SET: u8 = 0xb7;
/// `BPF_JMP | BPF_JNE | BPF_K`
const UNEQUAL: u8 = 0x55;
/// `BPF_JMP | BPF_EXIT`
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_DEV_CHAR`
const CHARACTER: i32 = 2;
/// The access bits of a device that is made, neither read nor written: `BPF_DEVCG_ACC_MKNOD`.
const MAKE: i32 = 1;

/// The program: returns 1 where access is allowed. Its context is `struct bpf_cgroup_dev_ctx`: access and type, major, minor.
fn program() -> Vec<Instruction> {
    let allow = [instruction(SET, 0, 0, 1), instruction(EXIT, 0, 0, 0)];
    let mut all = vec![
        // r2 = access bits, r3 = type, r4 = major, r5 = minor
        instruction(LOAD, 0x12, 0, 0),
        instruction(COPY, 0x23, 0, 0),
        instruction(AND, 0x03, 0, 0xffff),
        instruction(SHIFT, 0x02, 0, 16),
        instruction(LOAD, 0x14, 4, 0),
        instruction(LOAD, 0x15, 8, 0),
        instruction(UNEQUAL, 0x02, 2, MAKE),
    ];
    all.extend(allow);
    for (major, minor) in DEVICES {
        let jump = if minor.is_some() { 4 } else { 3 };
        all.push(instruction(UNEQUAL, 0x03, jump, CHARACTER));
        all.push(instruction(UNEQUAL, 0x04, jump - 1, *major));
        all.extend(minor.map(|minor| instruction(UNEQUAL, 0x05, 2, minor)));
        all.extend(allow);
    }
    all.extend([instruction(SET, 0, 0, 0), instruction(EXIT, 0, 0, 0)]);
    all
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of parents and children count too.
const ALLOW_MULTI: u32 = 2;

fn bpf<T>(command: i32, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are laid out as the kernel expects for the command, and outlive the call with all they point to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    match i32::try_from(result) {
        Ok(number) if number >= 0 => Ok(number),
        _ => Err(io::Error::last_os_error()),
    }
}

fn load(program: &[Instruction]) -> io::Result<File> {
    use std::os::fd::FromRawFd;
    let attributes = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: program.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel: 0,
        flags: 0,
    };
    let fd = bpf(PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Confines the cgroup at `path` to the devices of the bundle, where cgroup v2 controls devices. The kernel forgets the
/// program together with the cgroup.
pub(crate) fn confine(path: &str) -> io::Result<()> {
    let Some(dir) = cgroup::v2_devices(path) else { return Ok(()) };
    let (dir, program) = (File::open(dir)?, load(&program())?);
    attach(&dir, &program)
}

fn attach(cgroup: &File, program: &File) -> io::Result<()> {
    let number = |file: &File| file.as_raw_fd().cast_unsigned();
    let attributes =
        Attach { target: number(cgroup), program: number(program), kind: ATTACH_CGROUP_DEVICE, flags: ALLOW_MULTI };
    bpf(PROG_ATTACH, &attributes).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_kernel_takes_the_program_and_refuses_other_devices() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let v2 = mounts.lines().find(|l| l.contains(" - cgroup2 ")).expect("this test needs a cgroup2 file system");
        let dir = Path::new(v2.split(' ').nth(4).unwrap()).join(format!("skep-devices-{}", std::process::id()));
        fs::create_dir(&dir).expect("this test needs root");
        let scratch = tempfile::tempdir().unwrap();
        let node = scratch.path().join("disk");
        attach(&File::open(&dir).unwrap(), &load(&program()).unwrap()).unwrap();
        // mknod is allowed, opening the disk is not, the null device is.
        let script = "echo $$ > $0/cgroup.procs && mknod $1 b 7 0 && echo x > /dev/null && head -c1 /dev/zero | wc -c && head -c0 $1";
        let done = Command::new("/bin/sh").args(["-c", script]).arg(&dir).arg(&node).output().unwrap();
        let removed = fs::remove_dir(&dir);
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!(out.trim(), "1", "{err}");
        assert!(err.contains("Operation not permitted") && !done.status.success(), "{err}");
        removed.unwrap();
    }
}
