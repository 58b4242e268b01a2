//! Secrets and configs whose content is a template.

use std::collections::BTreeMap;

use gotmpl::{Template, TemplateError as Flaw, Value};
use skep_model::{ContainerSpec, Data};

use crate::facts::Facts;
use crate::{TemplateError, text_of};

/// What the content of a secret or config may ask for besides [`Facts`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// The container's variables.
    env: BTreeMap<String, String>,
    /// The container's secrets, by the names of their files and by their own.
    secrets: BTreeMap<String, Data>,
    /// And its configs.
    configs: BTreeMap<String, Data>,
}

impl Given {
    /// What a container has, its variables filled in. Secrets and configs come with the name of their file and their own.
    #[must_use]
    pub fn new<'a>(
        container: &ContainerSpec,
        secrets: impl IntoIterator<Item = (&'a str, &'a str, &'a Data)>,
        configs: impl IntoIterator<Item = (&'a str, &'a str, &'a Data)>,
    ) -> Self {
        let pairs = container.env.iter().filter_map(|variable| variable.split_once('='));
        Self {
            env: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            secrets: by_name(secrets),
            configs: by_name(configs),
        }
    }
}

/// The name of the file goes before another one's own name.
fn by_name<'a>(files: impl IntoIterator<Item = (&'a str, &'a str, &'a Data)>) -> BTreeMap<String, Data> {
    let (mut targets, mut names) = (BTreeMap::new(), BTreeMap::new());
    for (target, name, data) in files {
        targets.insert(target.to_owned(), data.clone());
        names.insert(name.to_owned(), data.clone());
    }
    names.extend(targets);
    names
}

/// Whether the content of a secret or config is a template.
///
/// # Errors
/// Saying where it is none. Whether it can be filled in shows where it is used.
pub fn check_payload(data: &Data) -> Result<(), TemplateError> {
    let text = utf8("Data", data)?;
    let any = |_: &[Value]| Ok(Value::from(""));
    let parsed =
        Template::new("Data").func("env", any).func("secret", any).func("config", any).func("join", any).parse(text);
    parsed.map(drop).map_err(|flaw| TemplateError::new("Data", text, &flaw))
}

/// The content of a secret or config, filled in. `name` is its own.
///
/// # Errors
/// Saying what it asks for in vain.
pub fn fill(name: &str, data: &Data, facts: &Facts, given: &Given) -> Result<Data, TemplateError> {
    let text = utf8(name, data)?;
    let Given { env, secrets, configs } = given.clone();
    let filled = text_of(name, text, &facts.value(), move |template| {
        template
            // What is not set is empty, as for Docker.
            .func("env", move |args| Ok(Value::from(env.get(&asked(args)?).map_or("", String::as_str))))
            .func("secret", move |args| content("secret", &secrets, args))
            .func("config", move |args| content("config", &configs, args))
    });
    Ok(Data(filled?.into_bytes()))
}

fn utf8<'a>(field: &str, data: &'a Data) -> Result<&'a str, TemplateError> {
    let no_text = "a template must be text in UTF-8";
    std::str::from_utf8(&data.0).map_err(|_| TemplateError::new(field, "", &no_text))
}

fn asked(args: &[Value]) -> Result<String, Flaw> {
    match args {
        [name] => Ok(name.to_string()),
        _ => Err(Flaw::Exec("a name is expected, such as env \"NAME\"".to_owned())),
    }
}

fn content(what: &str, all: &BTreeMap<String, Data>, args: &[Value]) -> Result<Value, Flaw> {
    let name = asked(args)?;
    let data = all.get(&name).ok_or_else(|| {
        Flaw::Exec(format!("the service has no {what} {name:?}: give it one with --{what} source={name}"))
    })?;
    let text = std::str::from_utf8(&data.0).map_err(|_| Flaw::Exec(format!("the {what} {name:?} is no text")))?;
    Ok(Value::from(text))
}
