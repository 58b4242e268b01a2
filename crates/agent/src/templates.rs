//! What a task's service leaves to its node to fill in.

use skep_model::{Config, Data, FileReference, Node, Secret, Task, Templating};
use skep_runtime::ContainerFile;
use skep_template::{Facts, Given, TemplateError};

use crate::Assignments;

/// The task with the templates of its container filled in.
///
/// # Errors
/// Naming what cannot be filled in.
pub fn expanded(task: &Task, node: Option<&Node>) -> Result<Task, TemplateError> {
    let mut task = task.clone();
    task.spec.container = skep_template::expand(&task.spec.container, &Facts::of(&task, node))?;
    Ok(task)
}

/// A secret or config of a task, with where its container has it.
struct File<'a> {
    reference: (&'a str, &'a str),
    file: ContainerFile,
    templating: Templating,
}

impl<'a> File<'a> {
    fn new<I>(reference: &'a FileReference<I>, path: String, spec: &'a skep_model::DataSpec) -> Self {
        let FileReference { uid, gid, mode, .. } = *reference;
        let file = ContainerFile { path, uid, gid, mode, data: spec.data.clone() };
        Self { reference: (&reference.target, &reference.name), file, templating: spec.templating }
    }

    fn named(&self) -> (&'a str, &'a str, &Data) {
        (self.reference.0, self.reference.1, &self.file.data)
    }
}

/// The files that a task is given, those filled in that are templates; `None` as long as managers have not handed all of them over.
pub(crate) fn files(handed: &Assignments, task: &Task) -> Option<Result<Vec<ContainerFile>, TemplateError>> {
    let container = &task.spec.container;
    let secret = |r| -> Option<_> {
        let r: &FileReference<_> = r;
        let kept: &Secret = handed.secrets.get(&r.id)?;
        Some(File::new(r, r.path(), &kept.spec))
    };
    let config = |r| -> Option<_> {
        let r: &FileReference<_> = r;
        let kept: &Config = handed.configs.get(&r.id)?;
        Some(File::new(r, r.path(), &kept.spec))
    };
    let secrets: Vec<_> = container.secrets.iter().map(secret).collect::<Option<_>>()?;
    let configs: Vec<_> = container.configs.iter().map(config).collect::<Option<_>>()?;
    let facts = Facts::of(task, handed.node.as_ref());
    let given = Given::new(container, secrets.iter().map(File::named), configs.iter().map(File::named));
    let filled = |file: File<'_>| match file.templating {
        Templating::None => Ok(file.file),
        Templating::Golang => {
            let data = skep_template::fill(file.reference.1, &file.file.data, &facts, &given)?;
            Ok(ContainerFile { data, ..file.file })
        }
    };
    Some(secrets.into_iter().chain(configs).map(filled).collect())
}
