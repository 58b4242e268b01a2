//! JSON laid out for reading, with members in the order in which the daemon wrote them.

/// Lays out compact or spaced JSON with four spaces per level.
pub(crate) fn indent(text: &str) -> String {
    let (mut out, mut depth, mut quoted, mut escaped) = (String::with_capacity(text.len() * 2), 0usize, false, false);
    let mut characters = text.trim().chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", depth));
    };
    while let Some(c) = characters.next() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                quoted = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while characters.next_if(|c| c.is_whitespace()).is_some() {}
                if let Some(end) = characters.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_and_strings_are_kept() {
        let text = r#"[{"b":"x, \"y\": {","a":[],"c":{ },"d":[1,2]}]"#;
        let want = "[\n    {\n        \"b\": \"x, \\\"y\\\": {\",\n        \"a\": [],\n        \"c\": {},\n        \"d\": [\n            1,\n            2\n        ]\n    }\n]";
        assert_eq!(indent(text), want);
    }

    proptest! {
        #[test]
        fn the_value_stays_the_same(strings in proptest::collection::vec(any::<String>(), 0..5), n: i64) {
            let value = serde_json::json!({ "a": strings, "n": n, "o": { "s": "\\\"" } });
            let again: serde_json::Value = serde_json::from_str(&indent(&value.to_string())).unwrap();
            prop_assert_eq!(again, value);
        }
    }
}
