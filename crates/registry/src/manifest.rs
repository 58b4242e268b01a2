//! What a registry says an image is made of: manifests and indexes, of Docker's kind (schema 2) and of OCI's.

use std::fmt;

use serde::Deserialize;
use skep_runtime::images::{Digest, architecture};

use crate::error::RegistryError;

/// What is asked for, best first.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Bytes of a manifest, an index or a configuration.
pub(crate) const LIMIT: usize = 4 << 20;
/// Layers of an image, and entries of an index.
const MOST: usize = 1000;

/// A kind of machine, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Platform {
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// `v7`, `v8`, …; often empty.
    #[serde(default)]
    pub variant: String,
}

impl Platform {
    /// This machine.
    #[must_use]
    pub fn own() -> Self {
        Self { os: "linux".to_owned(), architecture: architecture().to_owned(), variant: String::new() }
    }

    /// Reads `os`, `os/architecture` or `os/architecture/variant`; what is missing is as on this machine.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_ascii_lowercase);
        let os = parts.next().filter(|os| !os.is_empty())?;
        let architecture = parts.next().unwrap_or_else(|| architecture().to_owned());
        let architecture = match architecture.as_str() {
            "x86_64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            _ => architecture,
        };
        let variant = parts.next().unwrap_or_default();
        parts.next().is_none().then_some(Self { os, architecture, variant })
    }

    /// How well something for `self` runs where `wanted` is asked for: less is better, `None` is not at all.
    fn suits(&self, wanted: &Self) -> Option<u8> {
        if (&self.os, &self.architecture) != (&wanted.os, &wanted.architecture) {
            return None;
        }
        // What every processor of the architecture can do.
        let plain = matches!(
            (wanted.architecture.as_str(), self.variant.as_str()),
            (_, "") | ("amd64", "v1") | ("arm64", "v8")
        );
        match () {
            () if self.variant == wanted.variant => Some(0),
            () if plain => Some(1),
            () if wanted.variant.is_empty() => Some(2),
            () => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// Content, and what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    /// Bytes.
    pub(crate) size: u64,
}

/// An image for one kind of machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    /// Lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

/// What stands behind a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    /// One image.
    Image(Manifest),
    /// One for each kind of machine.
    Index(Vec<(Option<Platform>, Descriptor)>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: String,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: i64,
    platform: Option<Platform>,
}

impl Document {
    /// Reads the bytes of `reference`. `content_type` is what the registry calls them.
    pub(crate) fn parse(reference: &str, content_type: &str, bytes: &[u8]) -> Result<Self, RegistryError> {
        let bad = |reason: String| malformed(reference, reason);
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if raw.schema_version == Some(1) {
            return Err(RegistryError::OldManifest { reference: reference.to_owned() });
        }
        if raw.schema_version != Some(2) {
            return Err(bad("it is no manifest of schema version 2".to_owned()));
        }
        // One text that is an index to one reader and an image to another would be two images under one digest.
        let content_type = content_type.split(';').next().unwrap_or_default().trim();
        let kind = if raw.media_type.is_empty() { content_type } else { raw.media_type.as_str() };
        match (raw.manifests, raw.config, raw.layers) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err(bad("it is an index and an image at once".to_owned())),
            (Some(_), None, None) if is_image(kind) => Err(bad(format!("it is an index and calls itself {kind}"))),
            (Some(entries), None, None) => index(reference, &entries),
            (None, _, _) if is_index(kind) => Err(bad(format!("it has no manifests and calls itself {kind}"))),
            (None, Some(config), Some(layers)) => image(reference, &config, &layers),
            (None, _, _) => Err(bad("it has neither manifests nor config and layers".to_owned())),
        }
    }

    /// The one entry of an index for a kind of machine. Nothing for an image.
    pub(crate) fn choose(&self, reference: &str, wanted: &Platform) -> Result<Option<&Descriptor>, RegistryError> {
        let Self::Index(entries) = self else { return Ok(None) };
        let suiting = entries.iter().filter_map(|(platform, descriptor)| match platform {
            Some(platform) => Some((platform.suits(wanted)?, descriptor)),
            None => Some((u8::MAX, descriptor)),
        });
        let best = suiting.min_by_key(|(rank, _)| *rank).map(|(_, descriptor)| descriptor);
        best.map(Some).ok_or_else(|| {
            let found: Vec<String> = self.platforms().iter().map(ToString::to_string).collect();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            RegistryError::NoPlatform { reference: reference.to_owned(), wanted: wanted.to_string(), found }
        })
    }

    /// The kinds of machines of an index.
    pub(crate) fn platforms(&self) -> Vec<Platform> {
        let Self::Index(entries) = self else { return Vec::new() };
        // Attestations stand among images, for a machine that nobody has.
        let real = |platform: &&Platform| platform.os != "unknown" && !platform.os.is_empty();
        entries.iter().filter_map(|(platform, _)| platform.as_ref()).filter(real).cloned().collect()
    }
}

fn malformed(reference: &str, reason: String) -> RegistryError {
    RegistryError::Malformed { what: format!("the manifest of {reference}"), reason }
}

fn is_index(kind: &str) -> bool {
    kind.ends_with(".image.index.v1+json") || kind.ends_with(".manifest.list.v2+json")
}

fn is_image(kind: &str) -> bool {
    kind.ends_with(".image.manifest.v1+json") || kind.ends_with(".manifest.v2+json")
}

fn descriptor(reference: &str, raw: &RawDescriptor) -> Result<Descriptor, RegistryError> {
    let digest = match raw.digest.parse() {
        Ok(digest) if raw.digest.starts_with("sha256:") => digest,
        _ => {
            let shown: String = raw.digest.chars().take(100).collect();
            return Err(malformed(reference, format!("{shown:?} is no sha256 digest")));
        }
    };
    let size = u64::try_from(raw.size).map_err(|_| malformed(reference, format!("{} bytes is no size", raw.size)))?;
    Ok(Descriptor { media_type: raw.media_type.clone(), digest, size })
}

fn index(reference: &str, entries: &[RawDescriptor]) -> Result<Document, RegistryError> {
    if entries.len() > MOST {
        return Err(malformed(reference, format!("it has {} entries", entries.len())));
    }
    let entry = |raw: &RawDescriptor| descriptor(reference, raw).map(|found| (raw.platform.clone(), found));
    Ok(Document::Index(entries.iter().map(entry).collect::<Result<_, _>>()?))
}

fn image(reference: &str, config: &RawDescriptor, layers: &[RawDescriptor]) -> Result<Document, RegistryError> {
    if layers.len() > MOST {
        return Err(malformed(reference, format!("it has {} layers", layers.len())));
    }
    const CONFIGS: [&str; 3] =
        ["", "application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
    if !CONFIGS.contains(&config.media_type.as_str()) {
        return Err(malformed(reference, format!("it is no container image: its config is {}", config.media_type)));
    }
    if let Some(strange) = layers.iter().find(|l| !l.media_type.is_empty() && !is_layer(&l.media_type)) {
        return Err(malformed(reference, format!("a layer of the kind {} cannot be unpacked", strange.media_type)));
    }
    let layers = layers.iter().map(|raw| descriptor(reference, raw)).collect::<Result<_, _>>()?;
    Ok(Document::Image(Manifest { config: descriptor(reference, config)?, layers }))
}

fn is_layer(kind: &str) -> bool {
    ["tar", "tar.gzip", "tar+gzip", "tar+zstd", "tar.zstd"].iter().any(|end| {
        kind.strip_suffix(end).is_some_and(|kind| kind.starts_with("application/vnd.") && kind.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn described(kind: &str, seed: &[u8]) -> Value {
        json!({ "mediaType": kind, "digest": Digest::of(seed).to_string(), "size": seed.len() })
    }

    fn docker_image() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": described("application/vnd.docker.container.image.v1+json", b"config"),
            "layers": [described("application/vnd.docker.image.rootfs.diff.tar.gzip", b"layer")],
        })
    }

    fn parse(value: &Value) -> Result<Document, RegistryError> {
        Document::parse("web:1", "", value.to_string().as_bytes())
    }

    fn index_of(platforms: &[(&str, &str, &str)]) -> Document {
        let entry = |(os, architecture, variant): &(&str, &str, &str)| {
            let mut entry = described("", format!("{os}/{architecture}/{variant}").as_bytes());
            entry["platform"] = json!({ "os": os, "architecture": architecture, "variant": variant });
            entry
        };
        let entries: Vec<Value> = platforms.iter().map(entry).collect();
        parse(&json!({ "schemaVersion": 2, "manifests": entries })).unwrap()
    }

    #[test]
    fn images_of_both_kinds_are_read() {
        let Document::Image(image) = parse(&docker_image()).unwrap() else { panic!() };
        assert_eq!((image.config.digest, image.layers[0].size), (Digest::of(b"config"), 5));
        let mut oci = docker_image();
        oci["mediaType"] = Value::Null;
        oci.as_object_mut().unwrap().remove("mediaType");
        oci["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        oci["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd".into();
        let named = Document::parse("x", "application/vnd.oci.image.manifest.v1+json; a=b", oci.to_string().as_bytes());
        assert!(matches!(named, Ok(Document::Image(_))));
    }

    #[test]
    fn the_entry_for_the_machine_is_chosen() {
        let all = index_of(&[
            ("linux", "amd64", "v3"),
            ("linux", "amd64", ""),
            ("linux", "arm", "v6"),
            ("linux", "arm", "v7"),
            ("windows", "amd64", ""),
            ("unknown", "unknown", ""),
        ]);
        let chosen = |text: &str| {
            let wanted = Platform::parse(text).unwrap();
            all.choose("web", &wanted).map(|found| found.unwrap().digest)
        };
        assert_eq!(chosen("linux/amd64").unwrap(), Digest::of(b"linux/amd64/"));
        assert_eq!(chosen("linux/x86_64/v3").unwrap(), Digest::of(b"linux/amd64/v3"));
        assert_eq!(chosen("linux/arm/v7").unwrap(), Digest::of(b"linux/arm/v7"));
        let error = chosen("linux/s390x").unwrap_err().to_string();
        assert!(
            error.starts_with("no matching manifest for linux/s390x in the manifest list entries of web"),
            "{error}"
        );
        assert!(error.contains("linux/arm/v7") && !error.contains("unknown"), "{error}");
        assert_eq!(Platform::parse("a/b/c/d"), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut value = docker_image();
            change(&mut value);
            parse(&value).unwrap_err().to_string()
        };
        let contains = |error: String, part: &str| assert!(error.contains(part), "{error:?} should say {part:?}");
        contains(with(&|v| v["schemaVersion"] = 1.into()), "schema version 1");
        contains(with(&|v| v["schemaVersion"] = Value::Null), "no manifest of schema version 2");
        contains(with(&|v| v["layers"][0]["digest"] = "sha512:aa".into()), "no sha256 digest");
        contains(with(&|v| v["layers"][0]["digest"] = "../../etc/passwd".into()), "no sha256 digest");
        contains(with(&|v| v["layers"][0]["size"] = (-1).into()), "is no size");
        contains(with(&|v| v["layers"][0]["mediaType"] = "application/x-sh".into()), "cannot be unpacked");
        contains(
            with(&|v| v["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into()),
            "no container image",
        );
        contains(with(&|v| v["manifests"] = json!([])), "at once");
        contains(with(&|v| v["mediaType"] = "application/vnd.oci.image.index.v1+json".into()), "calls itself");
        contains(with(&|v| v["layers"] = vec![v["layers"][0].clone(); 1001].into()), "1001 layers");
        assert!(Document::parse("x", "", b"<html>").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Document::parse("x", "", &bytes);
        }
    }
}
