//! What an archive says it contains: `manifest.json` of `docker save`, or `index.json` of an OCI layout.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use skep_model::ImageRef;

use super::archive::{Archive, Member};
use super::digest::Digest;
use super::error::ImageError;

/// A file of the archive under the name that the manifest has for it.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) path: String,
    pub(super) member: Member,
}

/// An image that is to be loaded.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) config: Named,
    /// Lowest first.
    pub(super) layers: Vec<Named>,
    pub(super) refs: Vec<ImageRef>,
    pub(super) manifest: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciIndex {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct OciManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// An index may name indexes; nobody nests them deeper.
const NESTING: usize = 4;

/// The images of the archive, `manifest.json` before `index.json`: archives of newer Docker have both, and only the first has all names.
pub(super) fn plans(archive: &Archive) -> Result<Vec<Plan>, ImageError> {
    let plans = if let Some(manifest) = archive.get("manifest.json") {
        saved(archive, &manifest)?
    } else if let Some(index) = archive.get("index.json") {
        Layout { archive, skipped: Vec::new() }.plans(&index)?
    } else if archive.get("repositories").is_some() {
        return Err(ImageError::TooOld);
    } else {
        return Err(ImageError::NoManifest);
    };
    Ok(plans)
}

fn parse<T: DeserializeOwned>(archive: &Archive, path: &str, member: &Member) -> Result<T, ImageError> {
    serde_json::from_slice(&archive.text(path, member)?).map_err(|e| bad(path, e.to_string()))
}

fn bad(file: &str, reason: impl Into<String>) -> ImageError {
    ImageError::BadManifest { file: file.to_owned(), reason: reason.into() }
}

fn member(archive: &Archive, what: &'static str, path: &str) -> Result<Named, ImageError> {
    let missing = || ImageError::Missing { what, path: path.to_owned() };
    Ok(Named { path: path.to_owned(), member: archive.get(path).ok_or_else(missing)? })
}

fn saved(archive: &Archive, manifest: &Member) -> Result<Vec<Plan>, ImageError> {
    const FILE: &str = "manifest.json";
    let images: Vec<Saved> = parse(archive, FILE, manifest)?;
    if images.is_empty() {
        return Err(bad(FILE, "it names no image"));
    }
    let plan = |image: Saved| {
        let config = member(archive, "config", &image.config)?;
        // The config is called by its digest: `<digest>.json`, later `blobs/sha256/<digest>`.
        let name = image.config.rsplit('/').next().unwrap_or_default();
        if let Ok(expected) = name.strip_suffix(".json").unwrap_or(name).parse::<Digest>() {
            verify("config", &config, expected)?;
        }
        let layers = image.layers.unwrap_or_default();
        let layers = layers.iter().map(|path| member(archive, "layer", path)).collect::<Result<_, _>>()?;
        let refs = image.repo_tags.unwrap_or_default();
        let refs = refs.iter().map(|name| name.parse().map_err(|e| bad(FILE, format!("{e}"))));
        Ok(Plan { config, layers, refs: refs.collect::<Result<_, _>>()?, manifest: None })
    };
    images.into_iter().map(plan).collect()
}

fn verify(what: &'static str, named: &Named, expected: Digest) -> Result<(), ImageError> {
    let found = named.member.digest;
    if found == expected {
        return Ok(());
    }
    Err(ImageError::DigestDiffers { what: format!("{what} {}", named.path), expected, found })
}

struct Layout<'a> {
    archive: &'a Archive,
    /// Platforms that were passed over.
    skipped: Vec<String>,
}

impl Layout<'_> {
    fn plans(mut self, index: &Member) -> Result<Vec<Plan>, ImageError> {
        let index: OciIndex = parse(self.archive, "index.json", index)?;
        let mut plans = Vec::new();
        for descriptor in &index.manifests {
            plans.extend(self.resolve("index.json", descriptor, NESTING)?.map(|plan| named(plan, descriptor)));
        }
        if !plans.is_empty() {
            return Ok(plans);
        }
        if self.skipped.is_empty() {
            return Err(bad("index.json", "it names no image"));
        }
        Err(ImageError::NoPlatform { wanted: format!("linux/{}", architecture()), found: self.skipped.join(", ") })
    }

    /// The image behind a descriptor of `file`, if it is for this machine.
    fn resolve(&mut self, file: &str, found: &Descriptor, depth: usize) -> Result<Option<Plan>, ImageError> {
        if let Some(platform) = found.platform.as_ref().filter(|p| !p.is_ours()) {
            self.skipped.push(format!("{}/{}", platform.os, platform.architecture));
            return Ok(None);
        }
        let named = self.blob(file, "manifest", &found.digest)?;
        if is_index(&found.media_type) {
            return self.choose(&named, depth);
        }
        let manifest: OciManifest = parse(self.archive, &named.path, &named.member)?;
        let config = self.blob(&named.path, "config", &manifest.config.digest)?;
        let layers = manifest.layers.iter().map(|layer| self.blob(&named.path, "layer", &layer.digest));
        let layers = layers.collect::<Result<_, _>>()?;
        Ok(Some(Plan { config, layers, refs: Vec::new(), manifest: Some(named.member.digest) }))
    }

    /// The one image of a nested index that is for this machine.
    fn choose(&mut self, index: &Named, depth: usize) -> Result<Option<Plan>, ImageError> {
        let Some(depth) = depth.checked_sub(1) else { return Err(bad(&index.path, "indexes are nested too deep")) };
        let inner: OciIndex = parse(self.archive, &index.path, &index.member)?;
        // Entries that name their platform go before those that do not.
        let (stated, silent): (Vec<_>, Vec<_>) = inner.manifests.iter().partition(|m| m.platform.is_some());
        for descriptor in stated.into_iter().chain(silent) {
            if let Some(mut plan) = self.resolve(&index.path, descriptor, depth)? {
                plan.manifest = Some(index.member.digest);
                return Ok(Some(plan));
            }
        }
        Ok(None)
    }

    fn blob(&self, file: &str, what: &'static str, digest: &str) -> Result<Named, ImageError> {
        let expected: Digest = digest.parse().map_err(|e| bad(file, format!("{e}")))?;
        let named = member(self.archive, what, &format!("blobs/sha256/{}", expected.hex()))?;
        verify(what, &named, expected)?;
        Ok(named)
    }
}

fn is_index(media_type: &str) -> bool {
    media_type.ends_with(".image.index.v1+json") || media_type.ends_with(".manifest.list.v2+json")
}

/// The name that the archive's maker gave to an image. A bare word is a tag without a repository, so it names nothing.
fn named(mut plan: Plan, descriptor: &Descriptor) -> Plan {
    let whole = descriptor.annotations.get("io.containerd.image.name");
    let name = descriptor.annotations.get("org.opencontainers.image.ref.name");
    let text = whole.or_else(|| name.filter(|name| name.contains([':', '/'])));
    // A reference with a digest pins content; it is no name to give.
    let reference = text.and_then(|text| text.parse().ok()).filter(|r: &ImageRef| r.digest().is_none());
    plan.refs.extend(reference);
    plan
}

impl Platform {
    fn is_ours(&self) -> bool {
        self.os == "linux" && self.architecture == architecture()
    }
}

/// This machine's architecture in Go's words, which images use.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}
