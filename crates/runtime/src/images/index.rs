//! Which images there are and what they are called: kept in memory, and in one file that is replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use skep_model::ImageRef;

use super::config::ConfigFile;
use super::digest::{ChainId, Digest, ImageId};
use super::error::ImageError;
use super::layers;
use super::{Image, Removal, Removed};

/// All images by id.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub(super) images: BTreeMap<ImageId, Image>,
}

/// The result of a search, and whether it was found by a name or by id.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) image: Image,
    pub(super) name: Option<ImageRef>,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    images: Vec<Entry>,
}

/// What the configuration does not say about an image.
#[derive(Serialize, Deserialize)]
struct Entry {
    id: ImageId,
    refs: Vec<ImageRef>,
    size: u64,
    layers: Vec<ChainId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<Digest>,
}

const VERSION: u32 = 1;

impl Index {
    /// Reads the index of the store in `root`. An image whose files are gone or damaged is left out, with a warning.
    pub(super) fn read(root: &Path) -> Result<Self, ImageError> {
        let path = root.join("index.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(ImageError::io("read", &path)(error)),
        };
        let bad = |reason: String| ImageError::BadIndex { path: path.clone(), reason };
        let file: File = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if file.version != VERSION {
            return Err(bad(format!("it is of version {}, this skep knows version {VERSION}", file.version)));
        }
        let mut index = Self::default();
        for entry in file.images {
            match restore(root, &entry) {
                Ok(image) => drop(index.images.insert(image.id, image)),
                Err(error) => tracing::warn!(image = %entry.id, names = ?entry.refs, %error, "image is lost"),
            }
        }
        Ok(index)
    }

    /// Writes the index, atomically and durably.
    pub(super) fn write(&self, root: &Path) -> Result<(), ImageError> {
        let images = self.images.values().map(|image| Entry {
            id: image.id,
            refs: image.refs.clone(),
            size: image.size,
            layers: image.layers.clone(),
            manifest: image.manifest,
        });
        let path = root.join("index.json");
        let text = serde_json::to_vec(&File { version: VERSION, images: images.collect() })
            .map_err(|e| ImageError::io("write", &path)(io::Error::from(e)))?;
        layers::replace_file(&root.join("tmp"), &path, &text)
    }

    /// Bytes in the files of all layers, each counted once.
    pub(super) fn bytes(&self, root: &Path) -> u64 {
        let layers: BTreeSet<ChainId> = self.images.values().flat_map(|image| image.layers.iter().copied()).collect();
        layers.iter().filter_map(|layer| layers::size(root, layer).ok()).sum()
    }

    /// See [`super::Images::find`].
    pub(super) fn find(&self, text: &str) -> Result<Found, ImageError> {
        if let Some(image) = text.parse().ok().and_then(|id| self.images.get(&id)) {
            return Ok(Found { image: image.clone(), name: None });
        }
        if let Ok(reference) = text.parse::<ImageRef>()
            && let Some(found) = self.named(&reference)
        {
            return Ok(found);
        }
        self.by_prefix(text)
    }

    fn named(&self, wanted: &ImageRef) -> Option<Found> {
        let matches = |image: &Image, name: &ImageRef| match wanted.digest() {
            None => name == wanted,
            // What a registry has called so is that, whatever tag stands beside it.
            Some(digest) if name.digest().is_some() => name.digest() == Some(digest) && name.same_repository(wanted),
            Some(digest) => {
                let same_repository = name.same_repository(wanted);
                let id = image.id.0.to_string();
                let same_content = id == digest || image.manifest.is_some_and(|m| m.to_string() == digest);
                same_repository && same_content && wanted.tag().is_none_or(|tag| name.tag() == Some(tag))
            }
        };
        self.images.values().find_map(|image| {
            let name = image.refs.iter().find(|name| matches(image, name))?;
            Some(Found { image: image.clone(), name: Some(name.clone()) })
        })
    }

    fn by_prefix(&self, text: &str) -> Result<Found, ImageError> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let not_found = || ImageError::NotFound(text.to_owned());
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(not_found());
        }
        let mut all = self.images.values().filter(|image| image.id.hex().starts_with(prefix));
        match (all.next(), all.next()) {
            (Some(image), None) => Ok(Found { image: image.clone(), name: None }),
            (Some(_), Some(_)) => Err(ImageError::Ambiguous(text.to_owned())),
            (None, _) => Err(not_found()),
        }
    }

    /// Gives `image` the name `reference`; returns the other image that lost it.
    pub(super) fn tag(&mut self, image: &ImageId, reference: &ImageRef) -> Result<Option<ImageId>, ImageError> {
        if reference.digest().is_some() {
            return Err(ImageError::TagWithDigest(reference.familiar()));
        }
        if !self.images.contains_key(image) {
            return Err(ImageError::NotFound(image.to_string()));
        }
        Ok(self.name(image, reference))
    }

    /// Notes that a registry calls the content of `image` so: `repository@digest`.
    pub(super) fn pin(&mut self, image: &ImageId, reference: &ImageRef) {
        self.name(image, reference);
    }

    fn name(&mut self, image: &ImageId, reference: &ImageRef) -> Option<ImageId> {
        let mut loser = None;
        for (id, other) in &mut self.images {
            let before = other.refs.len();
            other.refs.retain(|name| name != reference);
            if other.refs.len() < before && id != image {
                loser = Some(*id);
            }
            if id == image {
                other.refs.push(reference.clone());
                other.refs.sort();
            }
        }
        loser
    }

    /// See [`super::Images::remove`].
    pub(super) fn remove(
        &mut self,
        text: &str,
        removal: Removal,
        in_use: &BTreeSet<ImageId>,
    ) -> Result<Vec<Removed>, ImageError> {
        let Found { image, name } = self.find(text)?;
        let names = match name {
            Some(name) => vec![name],
            None if removal == Removal::Careful && !is_single(&image.refs) => {
                return Err(ImageError::ManyReferences(image.id.short()));
            }
            None => image.refs.clone(),
        };
        let names = with_digests(names, &image.refs);
        let last = names.len() == image.refs.len();
        if last && in_use.contains(&image.id) {
            return Err(ImageError::InUse(text.to_owned()));
        }
        let mut removed: Vec<Removed> = names.iter().cloned().map(Removed::Untagged).collect();
        if last {
            self.images.remove(&image.id);
            removed.push(Removed::Deleted(image.id));
        } else if let Some(kept) = self.images.get_mut(&image.id) {
            kept.refs.retain(|name| !names.contains(name));
        }
        Ok(removed)
    }
}

/// Whether an image has one name, besides what registries call it in the same repository.
fn is_single(names: &[ImageRef]) -> bool {
    let tags = names.iter().filter(|name| name.tag().is_some()).count();
    tags <= 1 && names.windows(2).all(|pair| pair[0].same_repository(&pair[1]))
}

/// With a repository's last tag goes what the registry has called the image there.
fn with_digests(mut names: Vec<ImageRef>, all: &[ImageRef]) -> Vec<ImageRef> {
    let kept = |name: &ImageRef| name.tag().is_some() && !names.contains(name);
    let repositories: Vec<_> = all.iter().filter(|name| kept(name)).cloned().collect();
    let tags: Vec<_> = names.iter().filter(|name| name.tag().is_some()).cloned().collect();
    let same = |list: &[ImageRef], name: &ImageRef| list.iter().any(|other| other.same_repository(name));
    let orphans = all.iter().filter(|name| name.tag().is_none() && same(&tags, name) && !same(&repositories, name));
    let orphans: Vec<_> = orphans.filter(|name| !names.contains(name)).cloned().collect();
    names.extend(orphans);
    names
}

fn restore(root: &Path, entry: &Entry) -> Result<Image, ImageError> {
    let path = layers::blob_path(root, &entry.id.0);
    let bytes = fs::read(&path).map_err(ImageError::io("read", &path))?;
    let file = ConfigFile::parse(&path.to_string_lossy(), &bytes)?;
    if file.id != entry.id {
        let what = format!("config {}", path.display());
        return Err(ImageError::DigestDiffers { what, expected: entry.id.0, found: file.id.0 });
    }
    for chain in &entry.layers {
        layers::size(root, chain)?;
    }
    Ok(Image {
        id: entry.id,
        refs: entry.refs.clone(),
        size: entry.size,
        created: file.created,
        config: file.config,
        layers: entry.layers.clone(),
        manifest: entry.manifest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::ImageConfig;

    fn image(seed: &[u8], names: &[&str]) -> Image {
        Image {
            id: ImageId(Digest::of(seed)),
            refs: names.iter().map(|n| n.parse().unwrap()).collect(),
            size: 0,
            created: None,
            config: ImageConfig::default(),
            layers: vec![],
            manifest: Some(Digest::of(&[seed, b"manifest"].concat())),
        }
    }

    fn index(images: &[Image]) -> Index {
        Index { images: images.iter().map(|i| (i.id, i.clone())).collect() }
    }

    #[test]
    fn images_are_found_by_every_way_people_name_them() {
        let (a, b) = (image(b"a", &["nginx", "reg.example:5000/x:1"]), image(b"b", &["team/app:2"]));
        let index = index(&[a.clone(), b.clone()]);
        let manifest = a.manifest.unwrap();
        for text in ["nginx", "nginx:latest", "docker.io/library/nginx", "library/nginx", "reg.example:5000/x:1"] {
            assert_eq!(index.find(text).unwrap().image.id, a.id, "{text}");
        }
        let by_content = [format!("nginx@{manifest}"), format!("nginx:latest@{manifest}"), format!("nginx@{}", a.id)];
        let by_id = [a.id.to_string(), a.id.hex(), a.id.short(), format!("sha256:{}", &a.id.hex()[..4])];
        for text in by_content.iter().chain(&by_id) {
            assert_eq!(index.find(text).unwrap().image.id, a.id, "{text}");
        }
        let other = format!("nginx@{}", b.manifest.unwrap());
        for text in ["nginx:1", "app:2", "", "sha256:", "A", "../x", &other, &format!("nginx:1@{manifest}")] {
            assert!(matches!(index.find(text), Err(ImageError::NotFound(_))), "{text}");
        }
    }

    #[test]
    fn a_prefix_of_two_ids_is_ambiguous_and_a_name_goes_before_a_prefix() {
        let many: Vec<Image> = (0..40_u8).map(|n| image(&[n], &[])).collect();
        let mut index = index(&many);
        let doubled = many
            .iter()
            .map(|i| i.id.hex()[..1].to_owned())
            .find(|first| many.iter().filter(|i| i.id.hex().starts_with(first)).count() > 1);
        let prefix = doubled.unwrap();
        assert!(matches!(index.find(&prefix), Err(ImageError::Ambiguous(_))));
        index.tag(&many[0].id, &prefix.parse().unwrap()).unwrap();
        assert_eq!(index.find(&prefix).unwrap().image.id, many[0].id);
    }

    #[test]
    fn a_name_has_one_image() {
        let (a, b) = (image(b"a", &["web:1"]), image(b"b", &[]));
        let mut index = index(&[a.clone(), b.clone()]);
        let name: ImageRef = "web:1".parse().unwrap();
        assert_eq!(index.tag(&b.id, &name).unwrap(), Some(a.id));
        assert_eq!(index.tag(&b.id, &name).unwrap(), None);
        assert!(index.images[&a.id].refs.is_empty());
        assert_eq!(index.images[&b.id].refs, [name]);
        let digest = format!("web@{}", a.id).parse().unwrap();
        assert!(matches!(index.tag(&b.id, &digest), Err(ImageError::TagWithDigest(_))));
        assert!(matches!(index.tag(&ImageId(Digest::of(b"c")), &digest), Err(ImageError::TagWithDigest(_))));
    }

    #[test]
    fn what_a_registry_calls_an_image_goes_with_its_last_tag_there() {
        let mut a = image(b"a", &["reg.example/web:1"]);
        let pinned: ImageRef = format!("reg.example/web@{}", Digest::of(b"m")).parse().unwrap();
        let mut fresh = index(std::slice::from_ref(&a));
        fresh.pin(&a.id, &pinned);
        fresh.pin(&a.id, &pinned);
        a = fresh.images[&a.id].clone();
        assert_eq!(a.refs.len(), 2);
        for text in [format!("reg.example/web:7@{}", Digest::of(b"m")), pinned.to_string()] {
            assert_eq!(fresh.find(&text).unwrap().image.id, a.id, "{text}: a digest means one thing");
        }
        assert!(fresh.find(&format!("reg.example/other@{}", Digest::of(b"m"))).is_err());
        let nobody = BTreeSet::new();
        for text in ["reg.example/web:1".to_owned(), a.id.hex()] {
            let removed = fresh.clone().remove(&text, Removal::Careful, &nobody).unwrap();
            assert_eq!(removed.len(), 3, "the tag, the digest and the image: {removed:?}");
        }
        // By its digest it loses that alone; with another tag in the repository the digest stays.
        let mut one = fresh.clone();
        assert_eq!(
            one.remove(&pinned.to_string(), Removal::Careful, &nobody).unwrap(),
            [Removed::Untagged(pinned.clone())]
        );
        fresh.tag(&a.id, &"reg.example/web:2".parse().unwrap()).unwrap();
        assert_eq!(fresh.remove("reg.example/web:1", Removal::Careful, &nobody).unwrap().len(), 1);
        assert!(fresh.find(&pinned.to_string()).is_ok());
        assert!(matches!(fresh.tag(&a.id, &"other:1".parse().unwrap()), Ok(None)));
        assert!(matches!(fresh.remove(&a.id.hex(), Removal::Careful, &nobody), Err(ImageError::ManyReferences(_))));
    }

    #[test]
    fn removal_takes_the_name_then_the_image_but_never_what_is_in_use() {
        let a = image(b"a", &["web:1", "web:2"]);
        let nobody = BTreeSet::new();
        let used = BTreeSet::from([a.id]);
        let id = a.id.hex();
        let fresh = || index(std::slice::from_ref(&a));
        let name = |text: &str| Removed::Untagged(text.parse().unwrap());

        let mut some = fresh();
        assert_eq!(some.remove("web:1", Removal::Careful, &used).unwrap(), [name("web:1")]);
        assert!(matches!(some.remove("web:2", Removal::Forced, &used), Err(ImageError::InUse(_))));
        assert!(matches!(some.remove(&id, Removal::Forced, &used), Err(ImageError::InUse(_))));
        assert_eq!(some.remove("web:2", Removal::Careful, &nobody).unwrap(), [name("web:2"), Removed::Deleted(a.id)]);
        assert!(matches!(some.remove("web:2", Removal::Careful, &nobody), Err(ImageError::NotFound(_))));

        let mut all = fresh();
        assert!(matches!(all.remove(&id, Removal::Careful, &nobody), Err(ImageError::ManyReferences(_))));
        let everything = [name("web:1"), name("web:2"), Removed::Deleted(a.id)];
        assert_eq!(all.remove(&id, Removal::Forced, &nobody).unwrap(), everything);
        assert!(all.images.is_empty());
    }
}
