//! `--format`: Go templates with docker's functions.

use anyhow::Context as _;
use gotmpl::{TemplateError, Value as Go};
use serde_json::Value;

/// A parsed template.
pub(crate) struct Template(gotmpl::Template);

impl Template {
    /// Parses a template. `\t` and `\n` may be written with a backslash, since shells make them hard to type.
    ///
    /// # Errors
    /// With the place of the mistake.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let template = gotmpl::Template::new("format")
            .func("json", |args: &[Go]| Ok(Go::from(json_of(args.first()).to_string())))
            .func("lower", |args: &[Go]| Ok(Go::from(text_of(args, 0).to_lowercase())))
            .func("upper", |args: &[Go]| Ok(Go::from(text_of(args, 0).to_uppercase())))
            .func("title", |args: &[Go]| Ok(Go::from(super::title(&text_of(args, 0)))))
            .func("join", |args: &[Go]| Ok(Go::from(joined(args))))
            .func("split", |args: &[Go]| {
                let parts: Vec<Go> = text_of(args, 0).split(&text_of(args, 1)).map(Go::from).collect();
                Ok(Go::from(parts))
            })
            .func("truncate", |args: &[Go]| {
                let length = args.get(1).and_then(Go::as_int).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                Ok(Go::from(text_of(args, 0).chars().take(length).collect::<String>()))
            })
            .func("pad", pad)
            .parse(&text)
            .context("template parsing error")?;
        Ok(Self(template))
    }

    /// The template's text for a value.
    ///
    /// # Errors
    /// When the value has not what the template asks for.
    pub(crate) fn render(&self, value: &Value) -> anyhow::Result<String> {
        self.0.execute_to_string(&go(value)).context("template error")
    }
}

/// JSON as the template's values; numbers beyond an i64 become floats.
fn go(value: &Value) -> Go {
    match value {
        Value::Null => Go::Nil,
        Value::Bool(b) => Go::Bool(*b),
        Value::Number(n) => n.as_i64().map_or_else(|| Go::Float(n.as_f64().unwrap_or_default()), Go::Int),
        Value::String(s) => Go::from(s.as_str()),
        Value::Array(items) => Go::from(items.iter().map(go).collect::<Vec<Go>>()),
        Value::Object(members) => Go::from(
            members.iter().map(|(k, v)| (k.clone(), go(v))).collect::<std::collections::BTreeMap<String, Go>>(),
        ),
    }
}

fn text_of(args: &[Go], index: usize) -> String {
    args.get(index).map(ToString::to_string).unwrap_or_default()
}

fn joined(args: &[Go]) -> String {
    let Value::Array(items) = json_of(args.first()) else { return text_of(args, 0) };
    let items: Vec<String> = items.iter().map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned)).collect();
    items.join(&text_of(args, 1))
}

/// `pad text before after`: spaces around a text that is not empty.
fn pad(args: &[Go]) -> Result<Go, TemplateError> {
    let text = text_of(args, 0);
    let spaces =
        |i: usize| " ".repeat(args.get(i).and_then(Go::as_int).and_then(|n| usize::try_from(n).ok()).unwrap_or(0));
    Ok(Go::from(if text.is_empty() { text } else { format!("{}{text}{}", spaces(1), spaces(2)) }))
}

fn json_of(value: Option<&Go>) -> Value {
    match value {
        Some(Go::Bool(b)) => Value::from(*b),
        Some(Go::Int(n)) => Value::from(*n),
        Some(Go::Uint(n)) => Value::from(*n),
        Some(Go::Float(n)) => Value::from(*n),
        Some(Go::String(s)) => Value::from(s.to_string()),
        Some(Go::List(items)) => items.iter().map(|i| json_of(Some(i))).collect(),
        Some(Go::Map(members)) => {
            members.iter().map(|(k, v)| (k.to_string(), json_of(Some(v)))).collect::<serde_json::Map<_, _>>().into()
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn table() {
        let value =
            json!({"ID": "abc", "Spec": {"Name": "web", "Ports": [{"Target": 80}]}, "Tags": ["a", "b"], "No": null});
        for (text, want) in [
            ("{{.ID}}", "abc"),
            ("{{.Spec.Name}}\\t{{.ID}}", "web\tabc"),
            ("{{json .Spec}}", r#"{"Name":"web","Ports":[{"Target":80}]}"#),
            ("{{range .Spec.Ports}}{{.Target}}{{end}}", "80"),
            ("{{join .Tags \",\"}}", "a,b"),
            ("{{upper .ID}} {{title .Spec.Name}}", "ABC Web"),
            ("{{truncate .ID 2}}", "ab"),
            ("{{pad .ID 1 2}}|", " abc  |"),
            ("{{if .No}}x{{else}}y{{end}}", "y"),
            ("{{index (split .Spec.Name \"e\") 1}}", "b"),
        ] {
            assert_eq!(Template::parse(text).unwrap().render(&value).unwrap(), want, "{text}");
        }
        assert!(Template::parse("{{.ID").is_err());
    }
}
