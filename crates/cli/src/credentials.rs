//! Logins at registries, kept where docker keeps them: `config.json` in `$DOCKER_CONFIG` or `~/.docker`. Either command line uses the other's.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};

/// What docker calls its own registry in the file.
const DOCKER: &str = "https://index.docker.io/v1/";

/// The file of logins.
pub(crate) struct Credentials {
    /// `None` when nothing says where it is.
    path: Option<PathBuf>,
    file: Value,
}

impl Credentials {
    /// This person's; none where nothing says where they are.
    pub(crate) fn of_user() -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let dir = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")));
        dir.map_or_else(|| Ok(Self { path: None, file: json!({}) }), |dir| Self::load(&dir))
    }

    fn load(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("config.json");
        let file = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => json!({}),
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        Ok(Self { path: Some(path), file })
    }

    fn path(&self) -> anyhow::Result<&Path> {
        self.path.as_deref().context("neither DOCKER_CONFIG nor HOME says where logins are kept")
    }

    fn find(&self, registry: &str) -> Option<&Value> {
        let entries = self.file["auths"].as_object()?;
        entries.get(&key(registry)).or_else(|| {
            let same = |address: &str| host(address) == registry;
            entries.iter().find(|(address, _)| same(address)).map(|(_, entry)| entry)
        })
    }

    /// `X-Registry-Auth` for an image: nobody's, when there is no login at its registry.
    pub(crate) fn header(&self, image: &str) -> String {
        let registry = registry_of(image);
        let mut config = json!({});
        if let Some(entry) = self.find(&registry) {
            let pair = entry["auth"].as_str().and_then(|auth| STANDARD.decode(auth).ok());
            let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
            if let Some((username, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) {
                config = json!({ "username": username, "password": password });
            }
            if let Some(token) = entry["identitytoken"].as_str() {
                config["identitytoken"] = token.into();
            }
            config["serveraddress"] = key(&registry).into();
        }
        URL_SAFE.encode(config.to_string())
    }

    /// Notes a login.
    pub(crate) fn put(&mut self, registry: &str, username: &str, password: &str) -> anyhow::Result<()> {
        if self.file["credsStore"].as_str().is_some_and(|store| !store.is_empty()) {
            bail!("{} leaves logins to a helper program (credsStore): use docker login", self.path()?.display());
        }
        self.file["auths"][key(registry)] = json!({ "auth": STANDARD.encode(format!("{username}:{password}")) });
        self.write()
    }

    /// Forgets a login.
    pub(crate) fn remove(&mut self, registry: &str) -> anyhow::Result<()> {
        if let Some(entries) = self.file["auths"].as_object_mut() {
            entries.retain(|address, _| *address != key(registry) && host(address) != registry);
        }
        self.write()
    }

    /// For nobody else to read, all or nothing.
    fn write(&self) -> anyhow::Result<()> {
        let path = self.path()?;
        let failed = || format!("cannot write {}", path.display());
        let aside = path.with_extension(format!("json.{}", std::process::id()));
        let dir = path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(failed)?;
        let written = (|| {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all(&serde_json::to_vec_pretty(&self.file)?)?;
            file.sync_all()?;
            fs::rename(&aside, path)
        })();
        written.with_context(failed)
    }
}

/// By which name the file has a registry.
pub(crate) fn key(registry: &str) -> String {
    if registry == "docker.io" { DOCKER.to_owned() } else { registry.to_owned() }
}

/// The registry that an address means: `docker.io` when there is none.
pub(crate) fn host(address: &str) -> &str {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    match host.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// The registry of an image.
fn registry_of(image: &str) -> String {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => host(first).to_owned(),
        _ => "docker.io".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn decoded(header: &str) -> Value {
        serde_json::from_slice(&URL_SAFE.decode(header).unwrap()).unwrap()
    }

    #[test]
    fn logins_are_kept_as_docker_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("docker");
        let mut logins = Credentials::load(&place).unwrap();
        assert_eq!(logins.header("nginx"), "e30=");
        logins.put("docker.io", "ann", "a:b").unwrap();
        logins.put("reg.example:5000", "bob", "c").unwrap();
        let mode = fs::metadata(place.join("config.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let mut again = Credentials::load(&place).unwrap();
        assert_eq!(again.file["auths"][DOCKER]["auth"], STANDARD.encode("ann:a:b"));
        let hub = decoded(&again.header("team/app:1"));
        assert_eq!((hub["username"].as_str(), hub["password"].as_str()), (Some("ann"), Some("a:b")));
        assert_eq!(decoded(&again.header("reg.example:5000/web@sha256:00"))["username"], "bob");
        assert_eq!(again.header("reg.example:5001/web"), "e30=");
        again.remove("docker.io").unwrap();
        assert_eq!(again.header("nginx"), "e30=");
        again.file["credsStore"] = "pass".into();
        assert!(again.put("x", "y", "z").unwrap_err().to_string().contains("docker login"));
    }

    #[test]
    fn registries_are_told_apart() {
        for (image, registry) in [
            ("nginx", "docker.io"),
            ("team/app", "docker.io"),
            ("index.docker.io/x", "docker.io"),
            ("localhost/x", "localhost"),
            ("reg.example/x/y:1", "reg.example"),
        ] {
            assert_eq!(registry_of(image), registry, "{image}");
        }
        assert_eq!(host("https://reg.example:5000/v2/"), "reg.example:5000");
    }
}
