//! The archive that the kernel unpacks as its first file system: "newc", see Documentation/driver-api/early-userspace/buffer-format.rst
//! of the kernel.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const END: &str = "TRAILER!!!";

/// Writes an archive. Folders are made as files need them.
pub(super) struct Archive<W: Write> {
    out: W,
    inode: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, inode: 0, folders: BTreeSet::new() }
    }

    /// Adds an executable file, at an absolute path.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        let parents = Path::new(name).ancestors().skip(1).filter_map(Path::to_str).filter(|p| !p.is_empty());
        let mut missing: Vec<_> = parents.filter(|p| !self.folders.contains(*p)).map(str::to_owned).collect();
        missing.reverse();
        for folder in missing {
            self.entry(&folder, DIRECTORY, &[])?;
            self.folders.insert(folder);
        }
        self.entry(name, PROGRAM, content)
    }

    /// Writes the end, and gives back what was written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(END, 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let too_long = |_| io::Error::other(format!("{name} does not fit into an initramfs"));
        let size = u32::try_from(content.len()).map_err(too_long)?;
        let length = u32::try_from(name.len() + 1).map_err(too_long)?;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), length of the name, checksum
        write!(self.out, "070701")?;
        for field in [self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, length, 0] {
            write!(self.out, "{field:08X}")?;
        }
        write!(self.out, "{name}\0")?;
        self.pad(110 + name.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..length.next_multiple_of(4) - length])
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn an_archive_is_as_the_kernel_documents_it() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b", b"hello").unwrap();
        archive.file("/a/c", b"").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let names: Vec<_> = text.split("070701").skip(1).map(|e| e[104..].split('\0').next().unwrap()).collect();
        assert_eq!(names, ["a", "a/b", "a/c", "TRAILER!!!"]);
        let file = text.split("070701").nth(2).unwrap();
        assert_eq!(&file[8..16], "000081ED", "a regular file that everybody may execute");
        assert_eq!((&file[48..56], &file[88..96]), ("00000005", "00000004"), "sizes of content and name");
        assert_eq!(&file[104..], "a/b\0\0\0hello\0\0\0", "both padded to four bytes, counted from the header");
    }
}
