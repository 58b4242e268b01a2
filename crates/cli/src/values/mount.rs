//! `--mount type=bind,source=/a,target=/b,readonly`.

use serde_json::{Value, json};

use super::{key_value, parse_bytes};

/// Parses a mount into the API's `Mount`.
///
/// # Errors
/// A sentence for whoever typed it.
pub(crate) fn parse_mount(text: &str) -> Result<Value, String> {
    let mut out = json!({ "Type": "volume" });
    for field in &fields(text)? {
        let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(k, v)| (k, Some(v)));
        let given =
            || value.filter(|v| !v.is_empty()).ok_or_else(|| format!("the mount's field {key:?} needs a value"));
        match key.to_ascii_lowercase().as_str() {
            "type" => out["Type"] = json!(given()?.to_ascii_lowercase()),
            "source" | "src" => out["Source"] = json!(given()?),
            "target" | "dst" | "destination" => out["Target"] = json!(given()?),
            "readonly" | "ro" => out["ReadOnly"] = json!(boolean(key, value)?),
            "bind-propagation" => out["BindOptions"]["Propagation"] = json!(given()?),
            "volume-nocopy" => out["VolumeOptions"]["NoCopy"] = json!(boolean(key, value)?),
            "volume-label" => set(&mut out["VolumeOptions"]["Labels"], given()?),
            "volume-driver" => out["VolumeOptions"]["DriverConfig"]["Name"] = json!(given()?),
            "volume-opt" => set(&mut out["VolumeOptions"]["DriverConfig"]["Options"], given()?),
            "volume-subpath" => out["VolumeOptions"]["Subpath"] = json!(given()?),
            "tmpfs-size" => out["TmpfsOptions"]["SizeBytes"] = json!(parse_bytes(given()?)?),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(given()?, 8)
                    .map_err(|_| format!("{field:?}: the mode must be octal, such as 1777"))?;
                out["TmpfsOptions"]["Mode"] = json!(mode);
            }
            _ => {
                return Err(format!(
                    "a mount has no field {key:?}: there are type, source, target, readonly, bind-propagation, volume-nocopy, volume-label, volume-driver, volume-opt, volume-subpath, tmpfs-size and tmpfs-mode"
                ));
            }
        }
    }
    check(&out).map(|()| out)
}

fn set(map: &mut Value, pair: &str) {
    let (key, value) = key_value(pair);
    map[key] = json!(value);
}

/// The fields of a line of comma-separated values (RFC 4180): one in quotes may have commas in it, `"volume-opt=o=addr=10.0.0.1,rw"`.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let (mut fields, mut rest) = (Vec::new(), text);
    loop {
        let (field, left) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted).ok_or_else(|| format!("{text:?}: a quotation mark is not closed"))?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match left.strip_prefix(',') {
            Some(next) => rest = next,
            None if left.is_empty() => return Ok(fields),
            None => return Err(format!("{text:?}: a comma must follow the closing quotation mark")),
        }
    }
}

/// What is in quotes, behind the first, and what follows; a doubled quote is one.
fn quoted_field(quoted: &str) -> Option<(String, &str)> {
    let (mut field, mut rest) = (String::new(), quoted);
    loop {
        let end = rest.find('"')?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Some((field, rest)),
        }
    }
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
        let nfs = parse_mount(
            r#"source=d,target=/b,volume-driver=local,volume-opt=type=nfs,"volume-opt=o=addr=10.0.0.1,rw",volume-label=a=b,volume-label=c"#,
        );
        assert_eq!(
            nfs.unwrap()["VolumeOptions"],
            json!({"DriverConfig":{"Name":"local","Options":{"type":"nfs","o":"addr=10.0.0.1,rw"}},"Labels":{"a":"b","c":""}})
        );
        assert_eq!(fields(r#"a,"b""c,d",,e"#).unwrap(), ["a", "b\"c,d", "", "e"]);
        for bad in [
            "target=/b,\"volume-opt=a",
            "\"target=/b\"x",
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
