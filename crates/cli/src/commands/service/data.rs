//! Secrets and configs of a service: named by people, and by identifiers in its spec.

use serde_json::{Value, json};

use super::super::data::Kind;
use crate::session::Session;
use crate::values::{DataFile, filters};
use crate::view::View as _;

/// The fields of a reference.
struct Fields {
    list: &'static str,
    id: &'static str,
    name: &'static str,
}

fn fields(kind: Kind) -> Fields {
    match kind {
        Kind::Secret => Fields { list: "Secrets", id: "SecretID", name: "SecretName" },
        Kind::Config => Fields { list: "Configs", id: "ConfigID", name: "ConfigName" },
    }
}

/// Takes those called `rm` out of a spec, and puts `add` in; one that is there already is replaced.
pub(super) async fn change(
    session: &Session,
    kind: Kind,
    spec: &mut Value,
    add: &[DataFile],
    rm: &[String],
) -> anyhow::Result<()> {
    if add.is_empty() && rm.is_empty() {
        return Ok(());
    }
    let fields = fields(kind);
    let slot = &mut spec["TaskTemplate"]["ContainerSpec"][fields.list];
    let mut items: Vec<Value> = slot.as_array().cloned().unwrap_or_default();
    items.retain(|item| !rm.iter().any(|name| item[fields.name] == **name));
    for wanted in add {
        let id = find(session, kind, &wanted.source).await?;
        let item = json!({ "File": wanted.file, fields.id: id, fields.name: wanted.source });
        items.retain(|other| other["File"]["Name"] != item["File"]["Name"]);
        items.push(item);
    }
    *slot = Value::Array(items);
    Ok(())
}

async fn find(session: &Session, kind: Kind, name: &str) -> anyhow::Result<String> {
    let query: Vec<_> = filters(&[format!("name={name}")])?.map(|f| ("filters", f)).into_iter().collect();
    let found = session.client.get(kind.path(), &query).await?;
    // The daemon's filter takes beginnings of names too.
    let exact = found.list("").iter().find(|item| item.text("/Spec/Name") == name);
    exact.map(|item| item.text("/ID").to_owned()).ok_or_else(|| anyhow::anyhow!("{} not found: {name}", kind.word()))
}
