//! `--secret db` and `--config source=site,target=/etc/site.conf,mode=0400`.

use serde_json::{Value, json};

/// A secret or config as a file of the containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    /// Its name.
    pub(crate) source: String,
    /// The API's `File`.
    pub(crate) file: Value,
}

/// Parses one.
///
/// # Errors
/// A sentence for whoever typed it.
pub(crate) fn parse_data_file(text: &str) -> Result<DataFile, String> {
    let (mut source, mut target) = (None, None);
    let (mut uid, mut gid, mut mode) = ("0".to_owned(), "0".to_owned(), 0o444);
    if !text.contains(['=', ',']) {
        source = Some(text.to_owned());
    } else {
        for field in text.split(',') {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            if value.is_empty() {
                return Err(format!("the field {key:?} needs a value"));
            }
            match key.to_ascii_lowercase().as_str() {
                "source" | "src" => source = Some(value.to_owned()),
                "target" => target = Some(value.to_owned()),
                "uid" => value.clone_into(&mut uid),
                "gid" => value.clone_into(&mut gid),
                "mode" => {
                    mode = u32::from_str_radix(value.trim_start_matches("0o"), 8)
                        .map_err(|_| format!("invalid mode {value:?}: it must be octal, such as 0400"))?;
                }
                _ => {
                    return Err(format!("there is no field {key:?}: there are source, target, uid, gid and mode"));
                }
            }
        }
    }
    let source = source.filter(|s| !s.is_empty()).ok_or("source is required")?;
    let target = target.unwrap_or_else(|| source.clone());
    Ok(DataFile { source, file: json!({ "Name": target, "UID": uid, "GID": gid, "Mode": mode }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let short = parse_data_file("db").unwrap();
        assert_eq!(short.file, json!({ "Name": "db", "UID": "0", "GID": "0", "Mode": 292 }));
        let long = parse_data_file("source=db,target=/run/x,uid=1,gid=2,mode=0400").unwrap();
        assert_eq!(
            (long.source.as_str(), &long.file["Name"], &long.file["Mode"]),
            ("db", &json!("/run/x"), &json!(256))
        );
        for bad in ["", "target=/x", "source=", "db,mode=9", "source=db,mode=9", "source=db,colour=red"] {
            assert!(parse_data_file(bad).is_err(), "{bad}");
        }
    }
}
