use skep_model::{Data, SecretId, ServiceId};
use skep_store::Proposal;

use super::*;
use crate::control::service;
use crate::tests::{Sim, spec as service_spec};

fn spec(name: &str, size: usize) -> DataSpec {
    DataSpec {
        name: name.parse().unwrap(),
        labels: Default::default(),
        data: Data(vec![b'x'; size]),
        templating: Templating::None,
    }
}

fn apply(tables: &mut Tables, changes: Vec<Change>) {
    tables.apply(Proposal { base: None, now: Timestamp::UNIX_EPOCH, changes }).unwrap();
}

fn keep(tables: &mut Tables, name: &str) -> SecretId {
    let (id, changes) = create::<Secret>(tables, spec(name, 3), Timestamp::UNIX_EPOCH).unwrap();
    apply(tables, changes);
    id
}

fn reference(id: &SecretId, name: &str, target: &str) -> FileReference<SecretId> {
    FileReference { id: id.clone(), name: name.to_owned(), target: target.to_owned(), uid: 0, gid: 0, mode: 0o444 }
}

fn serve(tables: &mut Tables, secrets: Vec<FileReference<SecretId>>) -> Result<ServiceId, ControlError> {
    let mut asked = service_spec("web", 1);
    asked.task.container.secrets = secrets;
    let (id, changes) = service::create(tables, asked, Timestamp::UNIX_EPOCH)?;
    apply(tables, changes);
    Ok(id)
}

#[test]
fn size_and_name_are_held_to_what_docker_takes() {
    let mut tables = Sim::new(0).tables;
    let refused = |tables: &Tables, size| create::<Secret>(tables, spec("a", size), Timestamp::UNIX_EPOCH).unwrap_err();
    for size in [0, Secret::LIMIT] {
        assert_eq!(refused(&tables, size).to_string(), "secret data must be larger than 0 and less than 512000 bytes");
    }
    assert!(create::<Config>(&tables, spec("a", Secret::LIMIT), Timestamp::UNIX_EPOCH).is_ok());
    assert!(create::<Config>(&tables, spec("a", Config::LIMIT), Timestamp::UNIX_EPOCH).is_err());
    keep(&mut tables, "a");
    let error = refused(&tables, 1);
    assert_eq!(
        (error.to_string().as_str(), error.kind()),
        ("secret a already exists", crate::ErrorKind::AlreadyExists)
    );
    // A config may be called as a secret is.
    assert!(create::<Config>(&tables, spec("a", 1), Timestamp::UNIX_EPOCH).is_ok());
}

#[test]
fn only_labels_change() {
    let mut tables = Sim::new(0).tables;
    let id = keep(&mut tables, "a");
    let version = tables.get::<Secret>(&id).unwrap().meta.version;
    let labelled =
        |name: &str, size| DataSpec { labels: [("k".to_owned(), "v".to_owned())].into(), ..spec(name, size) };
    assert!(matches!(update::<Secret>(&tables, &id, version, labelled("b", 3)), Err(ControlError::OnlyLabels)));
    assert!(matches!(update::<Secret>(&tables, &id, version, labelled("a", 4)), Err(ControlError::OnlyLabels)));
    assert!(matches!(update::<Secret>(&tables, &id, Version(0), labelled("a", 3)), Err(ControlError::OutOfSequence)));
    // Its content is never shown, so that it need not be sent.
    let changes = update::<Secret>(&tables, &id, version, labelled("a", 0)).unwrap();
    apply(&mut tables, changes);
    let kept = tables.get::<Secret>(&id).unwrap();
    assert_eq!((kept.spec.labels.len(), kept.spec.data.0.len()), (1, 3));
}

#[test]
fn what_a_service_uses_must_be_there_and_stays() {
    let mut tables = Sim::new(0).tables;
    let (a, b) = (keep(&mut tables, "a"), keep(&mut tables, "b"));
    let ghost = SecretId::random();
    assert_eq!(serve(&mut tables, vec![reference(&ghost, "g", "g")]).unwrap_err().to_string(), "secret not found: g");
    assert!(serve(&mut tables, vec![reference(&a, "b", "g")]).is_err(), "the name of another one");
    let twice = vec![reference(&a, "a", "x"), reference(&b, "b", "/run/secrets/x")];
    assert!(serve(&mut tables, twice).unwrap_err().to_string().contains("/run/secrets/x"));
    serve(&mut tables, vec![reference(&a, "a", "a")]).unwrap();
    assert_eq!(
        remove::<Secret>(&tables, &a).unwrap_err().to_string(),
        "secret 'a' is in use by the following service: web"
    );
    assert!(remove::<Secret>(&tables, &b).is_ok());
    assert!(matches!(remove::<Secret>(&tables, &ghost), Err(ControlError::NotFound { .. })));
}
