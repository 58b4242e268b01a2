//! From a root file system in a tar to an image of one layer.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use serde_json::{Value, json};
use skep_model::{ImageRef, Timestamp};

use super::Images;
use super::digest::{Digest, Hashing};
use super::error::ImageError;
use super::load::Loaded;
use super::manifest::architecture;
use super::stream::{Allowance, Limited, decompressed};

/// What an image that is made of a root file system is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Import {
    /// Its name.
    pub reference: Option<ImageRef>,
    /// What its maker says of it.
    pub message: String,
    /// How containers of it run: the `config` of an image's configuration, in JSON.
    pub config: Value,
}

/// The unit of a tar archive, in bytes.
const BLOCK: u64 = 512;

impl Images {
    /// Makes an image of a root file system in a tar, plain or compressed with gzip or zstd.
    ///
    /// # Errors
    /// What is wrong with the archive, as in [`Images::load`].
    pub fn import(&self, archive: impl Read, import: &Import) -> Result<Loaded, ImageError> {
        let scratch = self.scratch()?;
        let path = scratch.path().join("rootfs");
        let failed = || ImageError::io("write", &path);
        let mut file = File::options().create_new(true).read(true).write(true).open(&path).map_err(failed())?;
        let allowance = Allowance::new(self.limits.bytes);
        let plain = decompressed(archive).map_err(|_| ImageError::NotATar)?;
        let mut hashing = Hashing::new(Limited::new(plain, allowance.clone()));
        io::copy(&mut hashing, &mut file).map_err(|source| match allowance.left() {
            0 => {
                ImageError::TooBig { what: "the root file system".to_owned(), limit: self.limits.bytes, unit: "bytes" }
            }
            _ => failed()(source),
        })?;
        let (diff, size) = hashing.finish();
        if size == 0 {
            return Err(ImageError::NotATar);
        }
        file.rewind().map_err(failed())?;
        let whole = enveloped(file, size, diff, import).map_err(failed())?;
        let loaded = self.load(whole, &mut |_| {})?;
        loaded.into_iter().next().ok_or(ImageError::NotATar)
    }
}

/// The archive that `docker save` would have written of the image.
fn enveloped(layer: File, size: u64, diff: Digest, import: &Import) -> io::Result<impl Read> {
    let name = Path::new("layer.tar");
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    let padding = vec![0; usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or(0)];
    let created = Timestamp::now().to_string();
    let config = json!({
        "created": created, "architecture": architecture(), "os": "linux", "config": import.config, "comment": import.message,
        "history": [{ "created": created, "comment": import.message }],
        "rootfs": { "type": "layers", "diff_ids": [diff.to_string()] },
    });
    let tags: Vec<String> = import.reference.iter().map(ImageRef::familiar).collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"] }]);
    let mut rest = tar::Builder::new(Vec::new());
    for (name, text) in [("config.json", config.to_string()), ("manifest.json", manifest.to_string())] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        rest.append_data(&mut header, name, text.as_bytes())?;
    }
    let (begin, end) = (header.as_bytes().to_vec(), rest.into_inner()?);
    Ok(io::Cursor::new(begin).chain(layer).chain(io::Cursor::new(padding)).chain(io::Cursor::new(end)))
}
