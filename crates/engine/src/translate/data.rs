//! Secrets and configs, and what of them a container is given.

use skep_model::{Config, ConfigId, Data, DataName, DataSpec, FileReference, Meta, Secret, SecretId, Templating};

use super::unsupported;
use crate::error::Error;
use crate::types::container_spec as container;
use crate::types::data as wire;
use crate::types::meta::{Driver, ObjectVersion};

/// The templates that there are.
const GOLANG: &str = "golang";

/// Reads the spec of a secret or config.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for what makes no sense and
/// [`ErrorKind::Unimplemented`](crate::ErrorKind::Unimplemented) for what skep cannot do, naming the field.
pub fn from_wire(spec: wire::DataSpec) -> Result<DataSpec, Error> {
    if spec.driver.as_ref().is_some_and(|driver| !driver.name.is_empty()) {
        return Err(unsupported("Driver", "this version of skep keeps secrets itself, and asks no driver for them"));
    }
    let templating = match spec.templating.as_ref().map_or("", |driver| &driver.name) {
        "" => Templating::None,
        GOLANG => Templating::Golang,
        other => {
            let why = format!("there is no template driver {other:?}: {GOLANG:?} is the only one");
            return Err(unsupported("Templating", &why));
        }
    };
    let name: DataName = spec.name.parse().map_err(|_| {
        Error::invalid(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
        )
    })?;
    let data = Data::from_base64(&spec.data).ok_or_else(|| Error::invalid("Data: expected base64"))?;
    Ok(DataSpec { name, labels: spec.labels, data, templating })
}

fn object(id: String, meta: Meta, spec: &DataSpec, data: String) -> wire::Data {
    wire::Data {
        id,
        version: ObjectVersion { index: meta.version.0 },
        created_at: meta.created.into(),
        updated_at: meta.updated.into(),
        spec: wire::DataSpec {
            name: spec.name.to_string(),
            labels: spec.labels.clone(),
            data,
            templating: (spec.templating == Templating::Golang)
                .then(|| Driver { name: GOLANG.to_owned(), ..Driver::default() }),
            ..wire::DataSpec::default()
        },
    }
}

/// Writes a secret, without its content.
#[must_use]
pub fn secret(secret: &Secret) -> wire::Data {
    object(secret.id.to_string(), secret.meta, &secret.spec, String::new())
}

/// Writes a config.
#[must_use]
pub fn config(config: &Config) -> wire::Data {
    object(config.id.to_string(), config.meta, &config.spec, config.spec.data.to_base64())
}

/// What a file of a container is to be.
struct File {
    target: String,
    uid: u32,
    gid: u32,
    mode: u32,
}

fn file(field: &str, name: &str, file: Option<&container::FileTarget>) -> Result<File, Error> {
    let file = file.ok_or_else(|| Error::invalid(format!("{field}: {name:?} has no File: where is it to appear?")))?;
    let number = |what: &str, text: &str| match text {
        "" => Ok(0),
        text => text.parse::<u32>().map_err(|_| {
            Error::invalid(format!(
                "{field}: {name:?} has the {what} {text:?}: a number is expected, names are of an image"
            ))
        }),
    };
    let outside = file.name.split('/').any(|part| part == "..") || file.name.contains('\0');
    if file.name.is_empty() || file.name.ends_with('/') || outside {
        return Err(Error::invalid(format!("{field}: {:?} is no path of a file in the container", file.name)));
    }
    if file.mode > 0o7777 {
        return Err(Error::invalid(format!(
            "{field}: {name:?} has the mode {:o}: at most 7777 is expected",
            file.mode
        )));
    }
    let (uid, gid) = (number("UID", &file.uid)?, number("GID", &file.gid)?);
    Ok(File { target: file.name.clone(), uid, gid, mode: file.mode })
}

/// Reads a container's secrets.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument), naming the field.
pub fn secrets_from_wire(references: &[container::SecretReference]) -> Result<Vec<FileReference<SecretId>>, Error> {
    const FIELD: &str = "ContainerSpec.Secrets";
    let one = |r: &container::SecretReference| {
        let File { target, uid, gid, mode } = file(FIELD, &r.secret_name, r.file.as_ref())?;
        let id = r.secret_id.parse().map_err(|e| Error::invalid(format!("{FIELD}: SecretID: {e}")))?;
        Ok(FileReference { id, name: r.secret_name.clone(), target, uid, gid, mode })
    };
    references.iter().map(one).collect()
}

/// Reads a container's configs.
///
/// # Errors
/// As [`secrets_from_wire`], and [`ErrorKind::Unimplemented`](crate::ErrorKind::Unimplemented) for one that is no file.
pub fn configs_from_wire(references: &[container::ConfigReference]) -> Result<Vec<FileReference<ConfigId>>, Error> {
    const FIELD: &str = "ContainerSpec.Configs";
    let one = |r: &container::ConfigReference| {
        if r.runtime.is_some() {
            return Err(unsupported(FIELD, "configs are files; one for the runtime is for Windows"));
        }
        let File { target, uid, gid, mode } = file(FIELD, &r.config_name, r.file.as_ref())?;
        let id = r.config_id.parse().map_err(|e| Error::invalid(format!("{FIELD}: ConfigID: {e}")))?;
        Ok(FileReference { id, name: r.config_name.clone(), target, uid, gid, mode })
    };
    references.iter().map(one).collect()
}

fn target<I>(reference: &FileReference<I>) -> Option<container::FileTarget> {
    Some(container::FileTarget {
        name: reference.target.clone(),
        uid: reference.uid.to_string(),
        gid: reference.gid.to_string(),
        mode: reference.mode,
    })
}

/// Writes a container's secrets.
#[must_use]
pub fn secrets_to_wire(references: &[FileReference<SecretId>]) -> Vec<container::SecretReference> {
    let one = |r: &FileReference<SecretId>| container::SecretReference {
        file: target(r),
        secret_id: r.id.to_string(),
        secret_name: r.name.clone(),
    };
    references.iter().map(one).collect()
}

/// Writes a container's configs.
#[must_use]
pub fn configs_to_wire(references: &[FileReference<ConfigId>]) -> Vec<container::ConfigReference> {
    let one = |r: &FileReference<ConfigId>| container::ConfigReference {
        file: target(r),
        runtime: None,
        config_id: r.id.to_string(),
        config_name: r.name.clone(),
    };
    references.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str, uid: &str, mode: u32) -> container::SecretReference {
        let file = container::FileTarget { name: name.to_owned(), uid: uid.to_owned(), gid: "0".to_owned(), mode };
        container::SecretReference {
            file: Some(file),
            secret_id: SecretId::random().to_string(),
            secret_name: "db".to_owned(),
        }
    }

    #[test]
    fn references_come_back_as_they_were() {
        let asked = vec![reference("db", "101", 0o400), reference("/etc/db", "0", 0o444)];
        assert_eq!(secrets_to_wire(&secrets_from_wire(&asked).unwrap()), asked);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            reference("../db", "0", 0),
            reference("", "0", 0),
            reference("db", "web", 0),
            reference("db", "0", 0o10000),
        ] {
            assert!(secrets_from_wire(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
        let spec = |templating: Option<&str>, data: &str, name: &str| wire::DataSpec {
            name: name.to_owned(),
            data: data.to_owned(),
            templating: templating.map(|name| Driver { name: name.to_owned(), ..Default::default() }),
            ..wire::DataSpec::default()
        };
        assert!(from_wire(spec(None, "czNjcmV0", "a.b")).is_ok());
        assert_eq!(from_wire(spec(Some("golang"), "eA==", "a")).unwrap().templating, Templating::Golang);
        for (templating, data, name) in [(Some("jinja"), "eA==", "a"), (None, "!", "a"), (None, "eA==", "a b")] {
            assert!(from_wire(spec(templating, data, name)).is_err(), "{templating:?} {data} {name}");
        }
    }
}
