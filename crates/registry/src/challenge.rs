//! What a registry says to somebody whom it does not know: `WWW-Authenticate` (RFC 7235; Docker Registry v2 authentication).

use std::collections::BTreeMap;

/// How a registry wants to be told who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// By name and password.
    Basic,
    /// By a token from another server.
    Bearer {
        /// The server's address.
        realm: String,
        /// What the registry calls itself there.
        service: Option<String>,
        /// What the token should be for, as far as the registry says.
        scope: Option<String>,
    },
}

/// The challenge of all that skep can answer to: a token before a password, which more people can read.
pub(crate) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut found: Vec<Challenge> = headers.filter_map(parse).collect();
    found.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
    found.into_iter().next()
}

/// One challenge. Of several in one header, the first.
fn parse(header: &str) -> Option<Challenge> {
    let header = header.trim();
    let (scheme, rest) = header.split_once(char::is_whitespace).unwrap_or((header, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = parameters(rest);
    let realm = parameters.remove("realm").filter(|realm| !realm.is_empty())?;
    let mut text = |name: &str| parameters.remove(name).filter(|value| !value.is_empty());
    Some(Challenge::Bearer { realm, service: text("service"), scope: text("scope") })
}

/// `name="value", name=value`; ends where it makes no sense any more.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim().to_ascii_lowercase();
        if name.is_empty() || name.contains(char::is_whitespace) {
            break;
        }
        let (value, after) = value(after.trim_start());
        found.entry(name).or_insert(value);
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    found
}

/// A word, or a text in quotes in which a backslash takes the next character as it is.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, next)| next)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_of_real_registries_are_understood() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#;
        let Some(Challenge::Bearer { realm, service, scope }) = parse(hub) else { panic!("{hub}") };
        assert_eq!(realm, "https://auth.docker.io/token");
        assert_eq!(service.as_deref(), Some("registry.docker.io"));
        assert_eq!(scope.as_deref(), Some("repository:library/nginx:pull"));
        let odd = r#"bearer service = a , realm="https://x/\"y\"",error="invalid_token""#;
        assert!(matches!(parse(odd), Some(Challenge::Bearer { realm, service: Some(s), scope: None })
            if realm == r#"https://x/"y""# && s == "a"));
        assert_eq!(parse(r#"Basic realm="Registry Realm""#), Some(Challenge::Basic));
    }

    #[test]
    fn a_token_goes_before_a_password_and_nonsense_is_none() {
        let both = ["Basic realm=x", r#"Bearer realm="https://t""#];
        assert!(matches!(choose(both.into_iter()), Some(Challenge::Bearer { .. })));
        for bad in ["", "Negotiate", "Bearer", "Bearer service=x", r#"Bearer realm="""#, "Bearer =x", "Digest realm=x"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_breaks_it(header in ".{0,200}", tail in r#"[a-z="\\, ]{0,60}"#) {
            let _ = parse(&header);
            let _ = parse(&format!("Bearer {tail}"));
        }
    }
}
