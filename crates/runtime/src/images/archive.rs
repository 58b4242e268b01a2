//! An image archive set down in one temporary file, with a table of what is where in it.
//!
//! The manifest may come after the layers, so everything has to be kept until it is known. Every file is hashed on the way.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::Limits;
use super::digest::{Digest, Hashing};
use super::error::ImageError;
use super::place::Source;
use super::stream::{Allowance, Extent, Limited, decompressed};

/// A file of the archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    at: u64,
    /// Bytes.
    pub(super) size: u64,
    /// The digest of its bytes.
    pub(super) digest: Digest,
}

enum Node {
    File(Member),
    /// To another path of the archive.
    Link(String),
}

/// An archive at rest.
pub(super) struct Archive {
    file: File,
    nodes: HashMap<String, Node>,
    text: u64,
}

/// Archives of old made each repeated layer a link to the first; links to links are not made by anybody.
const LINKS: usize = 8;

impl Archive {
    /// Reads all of `input` into a file in the directory `scratch`.
    pub(super) fn receive(input: impl Read, scratch: &Path, limits: &Limits) -> Result<Self, ImageError> {
        let path = scratch.join("archive");
        let mut file = File::options().create_new(true).read(true).write(true).open(&path);
        let file = file.as_mut().map_err(|e| ImageError::io("create", &path)(io::Error::from(e.kind())))?;
        let allowance = Allowance::new(limits.bytes);
        let mut entries = 0;
        let nodes = receive(input, file, &allowance, limits, &mut entries).map_err(|problem| match problem {
            Problem::Write(source) => ImageError::io("write", &path)(source),
            Problem::Entries => {
                ImageError::TooBig { what: "the archive".to_owned(), limit: limits.entries, unit: "entries" }
            }
            Problem::Read(_) if allowance.left() == 0 => {
                ImageError::TooBig { what: "the archive".to_owned(), limit: limits.bytes, unit: "bytes" }
            }
            Problem::Read(_) if entries == 0 => ImageError::NotATar,
            Problem::Read(source) => ImageError::Damaged { entries, source },
        })?;
        let file = file.try_clone().map_err(ImageError::io("open", &path))?;
        Ok(Self { file, nodes, text: limits.text })
    }

    /// The file at `path`, through links of the archive.
    pub(super) fn get(&self, path: &str) -> Option<Member> {
        let mut path = normal(path)?;
        for _ in 0..LINKS {
            match self.nodes.get(&path)? {
                Node::File(member) => return Some(*member),
                Node::Link(target) => path.clone_from(target),
            }
        }
        None
    }

    fn open(&self, member: &Member) -> Extent<'_> {
        Extent { file: &self.file, at: member.at, left: member.size }
    }

    /// Where the bytes of `member` are.
    pub(super) fn source(&self, member: &Member) -> Source<'_> {
        Source { file: &self.file, at: member.at, size: member.size, digest: member.digest }
    }

    /// All of a small file.
    pub(super) fn text(&self, path: &str, member: &Member) -> Result<Vec<u8>, ImageError> {
        if member.size > self.text {
            return Err(ImageError::TooBig { what: path.to_owned(), limit: self.text, unit: "bytes" });
        }
        let mut bytes = Vec::new();
        self.open(member).read_to_end(&mut bytes).map_err(ImageError::io("read", Path::new(path)))?;
        Ok(bytes)
    }
}

enum Problem {
    Read(io::Error),
    Write(io::Error),
    Entries,
}

fn receive(
    input: impl Read,
    file: &mut File,
    allowance: &Allowance,
    limits: &Limits,
    count: &mut u64,
) -> Result<HashMap<String, Node>, Problem> {
    let input = decompressed(input).map_err(Problem::Read)?;
    let mut archive = tar::Archive::new(Limited::new(input, allowance.clone()));
    let mut entries = archive.entries().map_err(Problem::Read)?;
    let (mut nodes, mut at) = (HashMap::new(), 0);
    while let Some(entry) = allowance.within(limits.text, || entries.next()) {
        let mut entry = entry.map_err(Problem::Read)?;
        *count += 1;
        if *count > limits.entries {
            return Err(Problem::Entries);
        }
        let name = std::str::from_utf8(&entry.path_bytes()).ok().and_then(normal);
        let kind = entry.header().entry_type();
        let Some(name) = name else {
            io::copy(&mut entry, &mut io::sink()).map_err(Problem::Read)?;
            continue;
        };
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().and_then(|to| String::from_utf8(to.into_owned()).ok());
            let base = if kind.is_symlink() { name.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
            if let Some(target) = target.and_then(|to| normal(&format!("{base}/{to}"))) {
                nodes.insert(name, Node::Link(target));
            }
        } else if kind.is_file() || kind.is_contiguous() {
            let mut hashing = Hashing::new(&mut entry);
            copy(&mut hashing, file)?;
            let (digest, size) = hashing.finish();
            nodes.insert(name, Node::File(Member { at, size, digest }));
            at += size;
        }
        io::copy(&mut entry, &mut io::sink()).map_err(Problem::Read)?;
    }
    Ok(nodes)
}

/// As `io::copy`, but says which side failed.
fn copy(from: &mut impl Read, to: &mut File) -> Result<(), Problem> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n]).map_err(Problem::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Problem::Read(error)),
        }
    }
}

/// The path without `.`, `..` and empty components; `None` when it leaves the archive or names its root. These paths are
/// only ever looked up in the table.
fn normal(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_members_are_made_normal() {
        assert_eq!(normal("./a//b/../c").as_deref(), Some("a/c"));
        assert_eq!(normal("/manifest.json").as_deref(), Some("manifest.json"));
        for outside in ["", ".", "..", "a/../..", "a/.."] {
            assert_eq!(normal(outside), None, "{outside}");
        }
    }
}
