//! From images in the store to an archive as `docker save` writes it.
//!
//! Layers are kept as trees and not as the archives that they came in. They are packed anew, in one way only: the same tree makes the same
//! bytes. Where these are not those that the layer came in, its digest is another one, and so is that of the image's configuration, which
//! names it: the saved image has an id of its own, and keeps it from then on.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use skep_model::ImageRef;
use tar::{EntryType, Header};

use super::digest::{ChainId, Digest, Hashing};
use super::error::ImageError;
use super::held::Held;
use super::{Images, layers};

/// What overlayfs writes on a directory of which it shows nothing from below.
const OPAQUE: &str = "trusted.overlay.opaque";
/// What an archive has instead (OCI image layer specification).
const OPAQUE_FILE: &str = ".wh..wh..opq";
const WHITEOUT: &str = ".wh.";

/// An image that will be saved, and the names that go with it.
#[derive(Debug)]
pub struct ToSave {
    image: Held,
    refs: Vec<ImageRef>,
}

/// A layer that is packed.
struct Packed {
    file: PathBuf,
    diff: Digest,
    size: u64,
}

impl Images {
    /// Finds images to be saved: one that is named goes with this name, one that is meant by its id with none. They stay until the values are
    /// dropped.
    ///
    /// # Errors
    /// As [`Images::find`].
    pub fn to_save(&self, names: &[String]) -> Result<Vec<ToSave>, ImageError> {
        let mut all: Vec<ToSave> = Vec::new();
        for name in names {
            let image = self.hold(name)?;
            let named =
                name.parse::<ImageRef>().ok().filter(|wanted| wanted.digest().is_none() && image.refs.contains(wanted));
            match all.iter_mut().find(|other| other.image.id == image.id) {
                Some(same) => same.refs.extend(named),
                None => all.push(ToSave { image, refs: named.into_iter().collect() }),
            }
        }
        Ok(all)
    }

    /// Writes an archive with these images.
    ///
    /// # Errors
    /// What is wrong with the store or with `out`.
    pub fn save(&self, images: &[ToSave], out: impl Write) -> Result<(), ImageError> {
        let scratch = self.scratch()?;
        let failed = || ImageError::io("write", Path::new("archive"));
        let mut packed: BTreeMap<ChainId, Packed> = BTreeMap::new();
        for chain in images.iter().flat_map(|one| &one.image.layers) {
            if !packed.contains_key(chain) {
                let file = scratch.path().join(chain.hex());
                packed.insert(*chain, pack(&layers::layer_path(&self.root, chain).join("diff"), file)?);
            }
        }
        let mut archive = tar::Builder::new(BufWriter::new(out));
        let mut manifest = Vec::new();
        let mut written: Vec<Digest> = Vec::new();
        for one in images {
            let of_image: Vec<&Packed> = one.image.layers.iter().filter_map(|chain| packed.get(chain)).collect();
            for layer in &of_image {
                if !written.contains(&layer.diff) {
                    written.push(layer.diff);
                    let file = File::open(&layer.file).map_err(ImageError::io("read", &layer.file))?;
                    append(&mut archive, &layer_name(layer), layer.size, file).map_err(failed())?;
                }
            }
            let config = self.config_of(one, &of_image)?;
            let name = format!("{}.json", Digest::of(&config).hex());
            append(&mut archive, &name, config.len() as u64, &config[..]).map_err(failed())?;
            let tags: Vec<String> = one.refs.iter().map(ImageRef::familiar).collect();
            manifest.push(json!({
                "Config": name,
                "RepoTags": (!tags.is_empty()).then_some(tags),
                "Layers": of_image.iter().map(|layer| layer_name(layer)).collect::<Vec<_>>(),
            }));
        }
        let manifest = Value::Array(manifest).to_string();
        append(&mut archive, "manifest.json", manifest.len() as u64, manifest.as_bytes()).map_err(failed())?;
        archive.into_inner().and_then(|mut out| out.flush()).map_err(failed())
    }

    /// The configuration of an image, with the digests of its layers as they are packed now.
    fn config_of(&self, one: &ToSave, packed: &[&Packed]) -> Result<Vec<u8>, ImageError> {
        let path = layers::blob_path(&self.root, &one.image.id.0);
        let bytes = fs::read(&path).map_err(ImageError::io("read", &path))?;
        let mut config: Value = serde_json::from_slice(&bytes).map_err(ImageError::io("read", &path))?;
        let diffs: Value = packed.iter().map(|layer| layer.diff.to_string()).collect();
        if config["rootfs"]["diff_ids"] == diffs {
            return Ok(bytes);
        }
        config["rootfs"]["diff_ids"] = diffs;
        Ok(config.to_string().into_bytes())
    }
}

fn layer_name(layer: &Packed) -> String {
    format!("{}/layer.tar", layer.diff.hex())
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, size: u64, data: impl Read) -> io::Result<()> {
    archive.append_data(&mut roots_own(size), name, data)
}

/// A file of root's, as old as can be.
fn roots_own(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Packs the tree of a layer into a file.
fn pack(tree: &Path, file: PathBuf) -> Result<Packed, ImageError> {
    let written = (|| {
        let mut packer = Packer {
            archive: tar::Builder::new(BufWriter::new(File::create(&file)?)),
            root: tree,
            links: HashMap::new(),
        };
        packer.directory(tree)?;
        packer.archive.into_inner()?.into_inner()?.sync_data()?;
        let mut hashing = Hashing::new(BufReader::new(File::open(&file)?));
        io::copy(&mut hashing, &mut io::sink())?;
        Ok::<_, io::Error>(hashing.finish())
    })();
    let (diff, size) = written.map_err(ImageError::io("pack", tree))?;
    Ok(Packed { file, diff, size })
}

struct Packer<'a> {
    archive: tar::Builder<BufWriter<File>>,
    root: &'a Path,
    /// Where a file with several names is in the archive.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Packer<'_> {
    /// A directory and all in it, in the order of names.
    fn directory(&mut self, dir: &Path) -> io::Result<()> {
        let meta = fs::symlink_metadata(dir)?;
        self.entry(dir, &meta, EntryType::Directory)?;
        if attribute(dir, OPAQUE)?.is_some_and(|value| value == b"y") {
            self.marker(&dir.join(OPAQUE_FILE))?;
        }
        let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for path in names {
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() { self.directory(&path)? } else { self.other(&path, &meta)? }
        }
        Ok(())
    }

    fn other(&mut self, path: &Path, meta: &Metadata) -> io::Result<()> {
        let kind = meta.file_type();
        if kind.is_char_device() && meta.rdev() == 0 {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            return self.marker(&path.with_file_name(format!("{WHITEOUT}{name}")));
        }
        if meta.nlink() > 1 && !self.is_first(path, meta) {
            return self.entry(path, meta, EntryType::Link);
        }
        match kind {
            _ if kind.is_file() => self.entry(path, meta, EntryType::Regular),
            _ if kind.is_symlink() => self.entry(path, meta, EntryType::Symlink),
            _ if kind.is_char_device() => self.entry(path, meta, EntryType::Char),
            _ if kind.is_block_device() => self.entry(path, meta, EntryType::Block),
            _ if kind.is_fifo() => self.entry(path, meta, EntryType::Fifo),
            // An archive holds no sockets.
            _ => Ok(()),
        }
    }

    fn is_first(&mut self, path: &Path, meta: &Metadata) -> bool {
        let name = self.name(path);
        self.links.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone()) == &name
    }

    /// Where it is in the archive.
    fn name(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(self.root).unwrap_or(path);
        if below.as_os_str().is_empty() { PathBuf::from("./") } else { below.to_owned() }
    }

    fn marker(&mut self, path: &Path) -> io::Result<()> {
        let name = self.name(path);
        self.archive.append_data(&mut roots_own(0), name, io::empty())
    }

    fn entry(&mut self, path: &Path, meta: &Metadata, kind: EntryType) -> io::Result<()> {
        let name = self.name(path);
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.mode() & 0o7777);
        header.set_uid(meta.uid().into());
        header.set_gid(meta.gid().into());
        header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
        header.set_size(0);
        match kind {
            EntryType::Link => {
                let first = self.links.get(&(meta.dev(), meta.ino())).cloned().unwrap_or_default();
                self.archive.append_link(&mut header, name, first)
            }
            EntryType::Symlink => self.archive.append_link(&mut header, name, fs::read_link(path)?),
            EntryType::Char | EntryType::Block => {
                header.set_device_major(rustix::fs::major(meta.rdev()))?;
                header.set_device_minor(rustix::fs::minor(meta.rdev()))?;
                self.archive.append_data(&mut header, name, io::empty())
            }
            EntryType::Regular => {
                self.attributes(path)?;
                header.set_size(meta.len());
                self.archive.append_data(&mut header, name, File::open(path)?)
            }
            _ => {
                self.attributes(path)?;
                self.archive.append_data(&mut header, name, io::empty())
            }
        }
    }

    /// Those extended attributes that unpacking takes, before the entry that they belong to.
    fn attributes(&mut self, path: &Path) -> io::Result<()> {
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        for name in attribute_names(path)? {
            let wanted = name.starts_with("user.") && !name.starts_with("user.overlay.");
            if (wanted || name == "security.capability")
                && let Some(value) = attribute(path, &name)?
            {
                found.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        found.sort();
        if found.is_empty() {
            return Ok(());
        }
        self.archive.append_pax_extensions(found.iter().map(|(name, value)| (name.as_str(), &value[..])))
    }
}

fn attribute_names(path: &Path) -> io::Result<Vec<String>> {
    let mut buffer = vec![0; 1 << 16];
    match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Ok(length) => {
            let names = buffer[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
            Ok(names.filter_map(|name| std::str::from_utf8(name).ok().map(str::to_owned)).collect())
        }
        Err(rustix::io::Errno::NOTSUP) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

fn attribute(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 1 << 16];
    match rustix::fs::lgetxattr(path, name, &mut buffer[..]) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
