//! Templates in what a service asks for, and in secrets and configs: Go's, as Docker has them.
//!
//! A service may write `{{.Node.Hostname}}` into the host name, the variables and the mounts of its containers; each task's node fills in what is
//! true of that task ([`expand`]). Managers try a template out before they take it ([`check`]), so that a bad one is refused and not found out by
//! every task. The content of a secret or config that was made with the driver `golang` may moreover ask for the container's variables, secrets and
//! configs ([`fill`]).
//!
//! Everything here is pure. What templates may ask is in [`Facts`] and nowhere else.

#![forbid(unsafe_code)]

mod facts;
mod payload;

use std::collections::BTreeMap;

use gotmpl::{MissingKey, Template, TemplateError as Flaw, Value};
use skep_model::{ContainerSpec, Mount, MountKind, ServiceSpec, VolumeOptions};

pub use facts::{Facts, NodeFacts, ServiceFacts, TaskFacts};
pub use payload::{Given, check_payload, fill};

/// A template that cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: the template {text:?} cannot be filled in: {reason}")]
pub struct TemplateError {
    /// Where it is.
    pub field: String,
    /// The template, or its beginning.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl TemplateError {
    /// How much of a template is shown.
    const SHOWN: usize = 100;

    fn new(field: &str, text: &str, reason: &impl ToString) -> Self {
        let text = text.chars().take(Self::SHOWN).collect();
        Self { field: field.to_owned(), text, reason: reason.to_string() }
    }
}

/// Whether a text is a template at all.
#[must_use]
pub fn is_template(text: &str) -> bool {
    text.contains("{{")
}

/// Tries out the templates of a service, with what is known of the service itself and made-up tasks and nodes. Returns a container as it may come to be, for other
/// checks.
///
/// # Errors
/// Naming the first template that cannot be filled in.
pub fn check(spec: &ServiceSpec) -> Result<ContainerSpec, TemplateError> {
    expand(&spec.task.container, &Facts::sample(spec.name.as_str(), &spec.labels))
}

/// The container of a task, its templates filled in: host name, variables, sources and targets of mounts, labels and driver options of volumes.
///
/// # Errors
/// Naming the first template that cannot be filled in.
pub fn expand(container: &ContainerSpec, facts: &Facts) -> Result<ContainerSpec, TemplateError> {
    let value = facts.value();
    let one = |field: &str, text: &str| text_of(field, text, &value, |template| template);
    let mut container = container.clone();
    if let Some(hostname) = &mut container.hostname {
        *hostname = one("Hostname", hostname)?;
    }
    for variable in &mut container.env {
        *variable = one("Env", variable)?;
    }
    for mount in &mut container.mounts {
        expand_mount(mount, &one)?;
    }
    Ok(container)
}

fn expand_mount(
    mount: &mut Mount,
    one: &impl Fn(&str, &str) -> Result<String, TemplateError>,
) -> Result<(), TemplateError> {
    mount.target = one("Mounts.Target", &mount.target)?;
    match &mut mount.kind {
        MountKind::Bind { source, .. } => *source = one("Mounts.Source", source)?,
        MountKind::Volume { source, options } => {
            if let Some(source) = source {
                *source = one("Mounts.Source", source)?;
            }
            let VolumeOptions { labels, driver, .. } = options;
            expand_map("Mounts.VolumeOptions.Labels", labels, one)?;
            if let Some(driver) = driver {
                expand_map("Mounts.VolumeOptions.DriverConfig.Options", &mut driver.options, one)?;
            }
        }
        MountKind::Tmpfs(_) => {}
    }
    Ok(())
}

fn expand_map(
    field: &str,
    map: &mut BTreeMap<String, String>,
    one: &impl Fn(&str, &str) -> Result<String, TemplateError>,
) -> Result<(), TemplateError> {
    map.values_mut().try_for_each(|value| {
        *value = one(field, value)?;
        Ok(())
    })
}

/// A text with its templates filled in. `more` may add functions. Asking for what there is not is an error, as for Docker's types.
fn text_of(
    field: &str,
    text: &str,
    value: &Value,
    more: impl FnOnce(Template) -> Template,
) -> Result<String, TemplateError> {
    if !is_template(text) {
        return Ok(text.to_owned());
    }
    let bad = |flaw: Flaw| TemplateError::new(field, text, &flaw);
    let template = Template::new(field).missing_key(MissingKey::Error).func("join", join).func("index", index);
    more(template).parse(text).map_err(bad)?.execute_to_string(value).map_err(bad)
}

/// `join "-" .Service.Name .Task.Slot`: the texts with the first between them.
fn join(args: &[Value]) -> Result<Value, Flaw> {
    let texts: Vec<String> = args.iter().map(ToString::to_string).collect();
    let (between, texts) = texts.split_first().map_or(("", &texts[..]), |(first, rest)| (first.as_str(), rest));
    Ok(Value::from(texts.join(between)))
}

/// `index .Service.Labels "key"`: a label that there is not is an empty text, as in Go.
fn index(args: &[Value]) -> Result<Value, Flaw> {
    let [Value::Map(map), key] = args else {
        return Err(Flaw::Exec("index takes a map and a key, such as index .Service.Labels \"key\"".to_owned()));
    };
    let key = key.to_string();
    Ok(map.iter().find(|(k, _)| k.to_string() == key).map_or_else(|| Value::from(""), |(_, value)| value.clone()))
}

#[cfg(test)]
mod tests;
