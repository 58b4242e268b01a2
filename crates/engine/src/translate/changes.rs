//! What an imported image is told to run: lines of a Dockerfile.

use serde_json::{Map, Value, json};

use crate::error::Error;

/// Reads the `changes` of an import into the `config` of an image's configuration.
///
/// # Errors
/// Naming the line: instructions that are not about how containers run, and such as make no sense.
pub fn config_from_changes<'a>(changes: impl IntoIterator<Item = &'a str>) -> Result<Value, Error> {
    let mut config = Map::new();
    let lines = changes.into_iter().flat_map(str::lines).map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        apply(&mut config, &verb.to_ascii_uppercase(), rest.trim())
            .ok_or_else(|| Error::invalid(format!("{line:?} is no change of an image: there are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR")))?;
    }
    Ok(Value::Object(config))
}

fn apply(config: &mut Map<String, Value>, verb: &str, rest: &str) -> Option<()> {
    if rest.is_empty() {
        return None;
    }
    match verb {
        "CMD" => set(config, "Cmd", command(rest)?),
        "ENTRYPOINT" => set(config, "Entrypoint", command(rest)?),
        "USER" => set(config, "User", json!(rest)),
        "WORKDIR" => set(config, "WorkingDir", json!(rest)),
        "STOPSIGNAL" => set(config, "StopSignal", json!(rest)),
        "ENV" => {
            let env = config.entry("Env").or_insert_with(|| json!([])).as_array_mut()?;
            env.extend(pairs(rest)?.into_iter().map(|(name, value)| json!(format!("{name}={value}"))));
        }
        "LABEL" => {
            let labels = config.entry("Labels").or_insert_with(|| json!({})).as_object_mut()?;
            labels.extend(pairs(rest)?.into_iter().map(|(name, value)| (name, json!(value))));
        }
        "EXPOSE" => {
            let ports = config.entry("ExposedPorts").or_insert_with(|| json!({})).as_object_mut()?;
            for port in rest.split_whitespace() {
                ports.insert(exposed(port)?, json!({}));
            }
        }
        "VOLUME" => {
            let volumes = config.entry("Volumes").or_insert_with(|| json!({})).as_object_mut()?;
            let list: Vec<String> = if rest.starts_with('[') {
                serde_json::from_str(rest).ok()?
            } else {
                rest.split_whitespace().map(str::to_owned).collect()
            };
            volumes.extend(list.into_iter().map(|path| (path, json!({}))));
        }
        _ => return None,
    }
    Some(())
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

/// A list in JSON, or a line for the shell.
fn command(rest: &str) -> Option<Value> {
    match rest.strip_prefix('[') {
        Some(_) => serde_json::from_str::<Vec<String>>(rest).ok().map(|words| json!(words)),
        None => Some(json!(["/bin/sh", "-c", rest])),
    }
}

/// A port with its protocol.
fn exposed(text: &str) -> Option<String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let good = port.parse::<std::num::NonZeroU16>().is_ok() && matches!(protocol, "tcp" | "udp");
    good.then(|| format!("{port}/{protocol}"))
}

/// `name=value name="another value"`, or `name value` to the end of the line.
fn pairs(rest: &str) -> Option<Vec<(String, String)>> {
    let words = words(rest)?;
    if !words.first()?.contains('=') {
        let (name, value) = rest.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| {
        let (name, value) = word.split_once('=').filter(|(name, _)| !name.is_empty())?;
        Some((name.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}

/// The words of a line; quotes hold spaces, a backslash takes what follows as it is. `None` when a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().push(letters.next()?),
            (end, Some(begin)) if end == begin => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (space, None) if space.is_whitespace() => words.extend(word.take()),
            (other, _) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_become_a_configuration() {
        let config = config_from_changes([
            "CMD [\"a\", \"b c\"]",
            "entrypoint run it",
            "ENV A=1 B=\"two words\" C=it\\ is\nENV OLD the old way",
            "LABEL team='blue green'",
            "EXPOSE 80 53/udp",
            "VOLUME /a /b",
            "VOLUME [\"/c d\"]",
            "USER web",
            "WORKDIR /srv",
            "STOPSIGNAL SIGQUIT",
        ]);
        let expected = json!({
            "Cmd": ["a", "b c"], "Entrypoint": ["/bin/sh", "-c", "run it"],
            "Env": ["A=1", "B=two words", "C=it is", "OLD=the old way"], "Labels": { "team": "blue green" },
            "ExposedPorts": { "80/tcp": {}, "53/udp": {} }, "Volumes": { "/a": {}, "/b": {}, "/c d": {} },
            "User": "web", "WorkingDir": "/srv", "StopSignal": "SIGQUIT",
        });
        assert_eq!(config.unwrap(), expected);
        assert_eq!(config_from_changes([]).unwrap(), json!({}));
    }

    #[test]
    fn what_is_no_change_is_named() {
        for bad in ["RUN make", "CMD", "CMD [\"a\"", "ENV A", "ENV =1", "LABEL a=\"b", "EXPOSE 0", "EXPOSE 80/sctp"] {
            let error = config_from_changes([bad]).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}
