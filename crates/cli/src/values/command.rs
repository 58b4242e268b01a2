//! A command in one flag (`--args "serve --name 'a b'"`), cut into words as a shell cuts them.

/// Cuts at spaces; quotes and backslashes keep them.
///
/// # Errors
/// When a quote is never closed.
pub(crate) fn split_command(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(characters.next()),
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(q) = quote {
        return Err(format!("the quote {q} in {text:?} is never closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (text, want) in [
            ("", vec![]),
            ("a  b", vec!["a", "b"]),
            ("a 'b c' \"d e\"", vec!["a", "b c", "d e"]),
            (r#"a\ b "c\"d" '' "#, vec!["a b", "c\"d", ""]),
            ("x'y'z", vec!["xyz"]),
        ] {
            assert_eq!(split_command(text).unwrap(), want, "{text}");
        }
        assert!(split_command("a 'b").is_err());
    }
}
