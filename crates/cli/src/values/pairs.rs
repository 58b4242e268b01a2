//! Pairs: environment, labels, filters, host entries, ulimits.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

/// `key=value`, or `key` for an empty value.
pub(crate) fn key_value(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// The variables of a file: one `KEY=value` per line; `#` begins a comment; a bare `KEY` takes its value from our own
/// environment, and is left out when it has none.
///
/// # Errors
/// When the file cannot be read, or a name has spaces in it.
pub(crate) fn env_file(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| anyhow::anyhow!("cannot read the environment file {}: {e}", path.display()))?;
    let mut out = Vec::new();
    for line in text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            anyhow::bail!(
                "the environment file {} has a line without a proper variable name: {line:?}",
                path.display()
            );
        }
        if line.contains('=') {
            out.push(line.to_owned());
        } else if let Ok(value) = std::env::var(name) {
            out.push(format!("{name}={value}"));
        }
    }
    Ok(out)
}

/// The `filters` parameter of the API from `--filter key=value` flags.
///
/// # Errors
/// When a filter has no `=`.
pub(crate) fn filters(given: &[String]) -> anyhow::Result<Option<String>> {
    let mut out: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::new();
    for text in given {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| anyhow::anyhow!("invalid filter {text:?}: it must be written key=value"))?;
        out.entry(key.trim()).or_default().insert(value.trim(), true);
    }
    Ok((!out.is_empty()).then(|| json!(out).to_string()))
}

/// `--host name:address` as a line of a hosts file: `address name`.
///
/// # Errors
/// A sentence for whoever typed it.
pub(crate) fn host_entry(text: &str) -> Result<String, String> {
    match text.split_once([':', '=']) {
        Some((name, address)) if !name.is_empty() && address.parse::<std::net::IpAddr>().is_ok() => {
            Ok(format!("{address} {name}"))
        }
        _ => Err(format!("{text:?} is no host entry: write name:address")),
    }
}

/// `--ulimit nofile=1024:2048` as the API's `Ulimit`.
///
/// # Errors
/// A sentence for whoever typed it.
pub(crate) fn parse_ulimit(text: &str) -> Result<Value, String> {
    let bad = || format!("{text:?} is no ulimit: write name=soft or name=soft:hard, where -1 means unlimited");
    let (name, limits) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard): (i64, i64) = (soft.parse().map_err(|_| bad())?, hard.parse().map_err(|_| bad())?);
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(format!("the ulimit {text:?} has a soft limit above its hard one"));
    }
    Ok(json!({ "Name": name, "Soft": soft, "Hard": hard }))
}

/// `--generic-resource`: gpu=2.
///
/// # Errors
/// A sentence for whoever typed it.
pub(crate) fn parse_generic(text: &str) -> Result<Value, String> {
    let bad = || format!("{text:?} is no request for generic resources: write KIND=NUMBER, as gpu=2");
    let (kind, count) = text.split_once('=').filter(|(kind, _)| !kind.is_empty()).ok_or_else(bad)?;
    let count: u32 = count.parse().ok().filter(|count| *count > 0).ok_or_else(bad)?;
    Ok(json!({ "DiscreteResourceSpec": { "Kind": kind, "Value": count } }))
}

/// `--network`: the network's name, or `name=net,alias=db,alias=store`.
///
/// # Errors
/// A sentence for whoever typed it.
pub(crate) fn parse_attachment(text: &str) -> Result<Value, String> {
    if !text.contains('=') {
        return Ok(json!({ "Target": text }));
    }
    let (mut target, mut aliases) = ("", Vec::new());
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("name", name)) => target = name,
            Some(("alias", alias)) => aliases.push(alias),
            Some(("driver-opt", _)) => {
                return Err("skep has no options of an attachment: leave driver-opt out".to_owned());
            }
            _ => return Err(format!("{part:?} says nothing of a network: write its name, or name=net,alias=db")),
        }
    }
    if target.is_empty() {
        return Err(format!("{text:?} does not name the network: write name=net,alias=db"));
    }
    let mut attachment = json!({ "Target": target });
    if !aliases.is_empty() {
        attachment["Aliases"] = json!(aliases);
    }
    Ok(attachment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_names_or_long() {
        assert_eq!(parse_attachment("net").unwrap(), json!({"Target":"net"}));
        let long = parse_attachment("name=net,alias=a,alias=b.c").unwrap();
        assert_eq!(long, json!({"Target":"net","Aliases":["a","b.c"]}));
        for bad in ["alias=a", "name=,alias=a", "name=net,x=y", "name=net,alias", "name=net,driver-opt=a=b"] {
            assert!(parse_attachment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_become_the_apis_json() {
        let given = ["name=a".to_owned(), "label=k=v".to_owned(), "name=b".to_owned()];
        assert_eq!(filters(&given).unwrap().unwrap(), r#"{"label":{"k=v":true},"name":{"a":true,"b":true}}"#);
        assert_eq!(filters(&[]).unwrap(), None);
        assert!(filters(&["name".to_owned()]).is_err());
    }

    #[test]
    fn a_number_of_a_kind() {
        let asked = parse_generic("gpu=2").unwrap();
        assert_eq!(asked, json!({ "DiscreteResourceSpec": { "Kind": "gpu", "Value": 2 } }));
        for bad in ["gpu", "=2", "gpu=0", "gpu=-1", "gpu=UUID1"] {
            assert!(parse_generic(bad).unwrap_err().contains("KIND=NUMBER"), "{bad}");
        }
    }

    #[test]
    fn hosts_and_ulimits() {
        assert_eq!(host_entry("db:10.0.0.9").unwrap(), "10.0.0.9 db");
        assert_eq!(host_entry("db:::1").unwrap(), "::1 db");
        assert!(host_entry("db").is_err() && host_entry("db:nowhere").is_err());
        assert_eq!(parse_ulimit("nofile=10").unwrap(), json!({"Name":"nofile","Soft":10,"Hard":10}));
        assert_eq!(parse_ulimit("nofile=10:-1").unwrap(), json!({"Name":"nofile","Soft":10,"Hard":-1}));
        for bad in ["nofile", "=1", "nofile=x", "nofile=20:10", "nofile=-1:10"] {
            assert!(parse_ulimit(bad).is_err(), "{bad}");
        }
    }
}
