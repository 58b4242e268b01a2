//! What the kernel says that maps take, those that are in other maps included.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use aya::maps::{MapInfo, MapType};

/// Bytes of all maps that are pinned in a directory. A bpffs has files of the kernel's own beside them.
pub(super) fn pinned(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter_map(|path| MapInfo::from_pin(path).ok()).map(|map| with_inner(&map)).sum()
}

/// Bytes of a pinned map.
pub(super) fn one(pin: &Path) -> u64 {
    with_inner(&MapInfo::from_pin(pin).unwrap_or_else(|error| panic!("{}: {error}", pin.display())))
}

fn with_inner(map: &MapInfo) -> u64 {
    let fd = map.fd().unwrap();
    let fd = fd.as_fd().as_raw_fd();
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let own: u64 = text.lines().find_map(|line| line.strip_prefix("memlock:")).unwrap().trim().parse().unwrap();
    if !matches!(map.map_type(), Ok(MapType::HashOfMaps | MapType::ArrayOfMaps)) {
        return own;
    }
    let inner = entries(fd, map.key_size() as usize).into_iter().map(|id| with_inner(&MapInfo::from_id(id).unwrap()));
    own + inner.sum::<u64>()
}

/// The numbers of the maps in a map, whatever its keys are.
fn entries(fd: i32, key_size: usize) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut key: Option<Vec<u8>> = None;
    let mut next = vec![0; key_size];
    while bpf(NEXT_KEY, fd, key.as_deref(), &mut next).is_ok() {
        let mut id = [0; 4];
        // An array has all its keys, and nothing at most of them.
        if bpf(LOOKUP, fd, Some(&next), &mut id).is_ok() {
            ids.push(u32::from_ne_bytes(id));
        }
        key = Some(next.clone());
    }
    ids
}

/// `BPF_MAP_LOOKUP_ELEM` and `BPF_MAP_GET_NEXT_KEY`.
const LOOKUP: i64 = 1;
const NEXT_KEY: i64 = 4;

/// The part of `union bpf_attr` (linux/bpf.h) that is about entries.
#[repr(C)]
struct Attr {
    fd: u32,
    pad: u32,
    key: u64,
    out: u64,
    flags: u64,
}

/// `out` must have room for a key or a value of the map.
fn bpf(command: i64, fd: i32, key: Option<&[u8]>, out: &mut [u8]) -> io::Result<()> {
    let key = key.map_or(0, |key| key.as_ptr() as u64);
    let attr = Attr { fd: fd.cast_unsigned(), pad: 0, key, out: out.as_mut_ptr() as u64, flags: 0 };
    // SAFETY: the kernel reads the attributes and the key, and writes a key or the number of a map to `out`, which is as long.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attr, size_of::<Attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
