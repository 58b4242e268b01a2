//! `--mount type=bind,source=/a,target=/b,readonly`.

use serde_json::{Value, json};

use super::parse_bytes;

/// Parses a mount into the API's `Mount`.
///
/// # Errors
/// A sentence for whoever typed it.
pub(crate) fn parse_mount(text: &str) -> Result<Value, String> {
    let mut out = json!({ "Type": "volume" });
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(k, v)| (k, Some(v)));
        let given =
            || value.filter(|v| !v.is_empty()).ok_or_else(|| format!("the mount's field {key:?} needs a value"));
        match key.to_ascii_lowercase().as_str() {
            "type" => out["Type"] = json!(given()?.to_ascii_lowercase()),
            "source" | "src" => out["Source"] = json!(given()?),
            "target" | "dst" | "destination" => out["Target"] = json!(given()?),
            "readonly" | "ro" => out["ReadOnly"] = json!(boolean(key, value)?),
            "bind-propagation" => out["BindOptions"]["Propagation"] = json!(given()?),
            "volume-nocopy" => out["VolumeOptions"]["NoCopy"] = json!(boolean(key, value)?),
            "tmpfs-size" => out["TmpfsOptions"]["SizeBytes"] = json!(parse_bytes(given()?)?),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(given()?, 8)
                    .map_err(|_| format!("{field:?}: the mode must be octal, such as 1777"))?;
                out["TmpfsOptions"]["Mode"] = json!(mode);
            }
            _ => {
                return Err(format!(
                    "a mount has no field {key:?}: there are type, source, target, readonly, bind-propagation, volume-nocopy, tmpfs-size and tmpfs-mode"
                ));
            }
        }
    }
    check(&out).map(|()| out)
}

fn check(mount: &Value) -> Result<(), String> {
    let kind = mount["Type"].as_str().unwrap_or_default();
    if mount["Target"].is_null() {
        return Err("missing mandatory field \"target\"".to_owned());
    }
    match (kind, mount["Source"].is_null()) {
        ("bind", true) => Err("a bind mount needs a source".to_owned()),
        ("tmpfs", false) => Err("a tmpfs mount has no source".to_owned()),
        ("bind" | "volume" | "tmpfs", _) => {
            let stray = [("BindOptions", "bind"), ("VolumeOptions", "volume"), ("TmpfsOptions", "tmpfs")];
            match stray.iter().find(|(options, of)| !mount[*options].is_null() && *of != kind) {
                Some((_, of)) => Err(format!("{of} options cannot be given to a mount of type {kind}")),
                None => Ok(()),
            }
        }
        _ => Err(format!("invalid mount type {kind:?}: it must be bind, volume or tmpfs")),
    }
}

fn boolean(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("invalid value {other:?} for {key}: it must be true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        assert_eq!(
            parse_mount("type=bind,src=/a,dst=/b,ro").unwrap(),
            json!({"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true})
        );
        assert_eq!(
            parse_mount("source=data,target=/b").unwrap(),
            json!({"Type":"volume","Source":"data","Target":"/b"})
        );
        assert_eq!(
            parse_mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap(),
            json!({"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1_048_576,"Mode":1023}})
        );
        for bad in [
            "",
            "type=bind,target=/b",
            "type=bind,source=/a",
            "type=tmpfs,source=a,target=/b",
            "type=nfs,target=/b",
            "target=/b,tmpfs-size=1",
            "target=",
            "target=/b,ro=maybe",
            "target=/b,colour=red",
        ] {
            assert!(parse_mount(bad).is_err(), "{bad}");
        }
    }
}
