//! `/images`. Names hold slashes, so what comes behind `/images/` is taken apart here.

use std::io;

use axum::body::Body;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use futures::StreamExt;
use serde_json::{Value, json};
use skep_model::ImageRef;

use super::answer::{Answer, Json, Refusal};
use super::params::Params;
use super::version::ApiVersion;
use super::{App, Shared, registry};
use crate::backend::image::{ImageInfo, Import, Prune, Pull, Removal};
use crate::error::{Error, ErrorKind};
use crate::stream::{chunked, load, pull};
use crate::translate::changes::config_from_changes;
use crate::translate::image as translate;
use crate::translate::running::STORAGE_DRIVER;

const FILTERS: [&str; 6] = ["before", "dangling", "label", "reference", "since", "until"];
/// From here on a list has no `VirtualSize`.
const NO_VIRTUAL_SIZE: ApiVersion = ApiVersion::new(1, 44);

/// Whether an image goes by a pattern like `nginx`, `nginx:1.*` or `team/*`.
fn goes_by(image: &ImageInfo, pattern: &str) -> bool {
    image.refs.iter().any(|r| glob(pattern, &r.familiar()) || glob(pattern, &r.familiar_name()))
}

/// `*` is any text without a slash, `?` one character of it.
fn glob(pattern: &str, text: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return text.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    match first {
        '*' => {
            let reach = text.find('/').unwrap_or(text.len());
            let mut cuts = text.char_indices().map(|(i, _)| i).chain([text.len()]).take_while(|i| *i <= reach);
            cuts.any(|i| glob(rest, &text[i..]))
        }
        '?' => text.chars().next().is_some_and(|c| c != '/' && glob(rest, &text[c.len_utf8()..])),
        literal => text.strip_prefix(literal).is_some_and(|t| glob(rest, t)),
    }
}

pub(super) async fn list(State(app): Shared, Extension(version): Extension<ApiVersion>, params: Params) -> Answer {
    let filters = params.filters(&FILTERS)?;
    for unknown in ["before", "since", "until"] {
        if filters.values(unknown).next().is_some() {
            return Err(Error::unimplemented(format!("images cannot be filtered by {unknown} yet")).into());
        }
    }
    let dangling = filters.flag("dangling")?;
    let images = app.backend.images().await?;
    let shown = images.iter().filter(|i| {
        dangling.is_none_or(|wanted| wanted == i.refs.is_empty())
            && filters.any("reference", |pattern| goes_by(i, pattern))
            && filters.labels("label", &i.config.labels)
    });
    let mut shown: Vec<_> = shown.map(|i| translate::summary(i, -1)).collect();
    shown.sort_by_key(|i| std::cmp::Reverse(i.created));
    if version < NO_VIRTUAL_SIZE {
        for image in &mut shown {
            image.virtual_size = image.size;
        }
    }
    Ok(Json::ok(shown).into_response())
}

pub(super) async fn load(State(app): Shared, params: Params, request: Request) -> Answer {
    let archive = request.into_body().into_data_stream().map(|part| part.map_err(io::Error::other)).boxed();
    let events = app.backend.image_load(archive).await?;
    load::response(events, params.flag("quiet")).await
}

/// Pulls an image, or makes one of the root file system that comes in.
pub(super) async fn create(
    State(app): Shared,
    headers: HeaderMap,
    params: Params,
    Query(pairs): Query<Vec<(String, String)>>,
    request: Request,
) -> Answer {
    match params.text("fromSrc") {
        "" => {}
        "-" => return import(&app, &params, &pairs, request).await,
        _ => return Err(not_yet("downloading what is imported: download it yourself, and import the file")),
    }
    let reference = wanted(params.text("fromImage"), params.text("tag"))?;
    let platform = Some(params.text("platform")).filter(|platform| !platform.is_empty()).map(str::to_owned);
    let pull = Pull { reference: reference.clone(), auth: registry::auth(&headers)?, platform };
    pull::response(reference, app.backend.image_pull(pull).await?).await
}

async fn import(app: &App, params: &Params, pairs: &[(String, String)], request: Request) -> Answer {
    let archive = request.into_body().into_data_stream().map(|part| part.map_err(io::Error::other)).boxed();
    match asked(params, pairs) {
        Ok(import) => {
            let id = app.backend.image_import(archive, import).await?;
            Ok(Json::ok(json!({ "status": translate::digest(&id) })).into_response())
        }
        Err(refusal) => {
            // Whoever is refused while still sending sees a broken connection instead of the refusal.
            archive.for_each(|_| std::future::ready(())).await;
            Err(refusal)
        }
    }
}

/// What is to become of a root file system.
fn asked(params: &Params, pairs: &[(String, String)]) -> Result<Import, Refusal> {
    let changes = pairs.iter().filter(|(name, _)| name == "changes").map(|(_, line)| line.as_str());
    let reference = match params.text("repo") {
        "" => None,
        repo => Some(wanted(repo, params.text("tag"))?),
    };
    if reference.as_ref().is_some_and(|reference| reference.digest().is_some()) {
        return Err(Error::invalid("refusing to create a tag with a digest reference").into());
    }
    let config = config_from_changes(changes)?;
    let message = match params.text("message") {
        "" => "Imported from -".to_owned(),
        text => text.to_owned(),
    };
    Ok(Import { reference, message, config })
}

/// Images as an archive.
async fn save(app: &App, names: Vec<String>) -> Answer {
    if names.is_empty() {
        return Err(Error::invalid("no image is named: names=… is expected").into());
    }
    Ok(chunked("application/x-tar", app.backend.image_save(names).await?))
}

/// What `fromImage` and `tag` name together; `tag` may be a digest. Neither is all tags to Docker, and `latest` here.
fn wanted(image: &str, tag: &str) -> Result<ImageRef, Error> {
    let text = match tag {
        "" => image.to_owned(),
        digest if digest.contains(':') => format!("{image}@{digest}"),
        tag => format!("{image}:{tag}"),
    };
    text.parse().map_err(|e: skep_model::BadImageRef| Error::invalid(e.to_string()))
}

/// Removes what is of no use.
pub(super) async fn prune(State(app): Shared, params: Params) -> Answer {
    let filters = params.filters(&["dangling", "label", "label!", "until"])?;
    for unknown in ["label", "label!", "until"] {
        if filters.values(unknown).next().is_some() {
            return Err(Error::unimplemented(format!("pruning cannot be limited by {unknown} yet")).into());
        }
    }
    let prune = if filters.flag("dangling")? == Some(false) { Prune::Unused } else { Prune::Untagged };
    let pruned = app.backend.image_prune(prune).await?;
    let deleted: Vec<_> = pruned.removed.iter().map(translate::removed).collect();
    let deleted = if deleted.is_empty() { Value::Null } else { json!(deleted) };
    Ok(Json::ok(json!({ "ImagesDeleted": deleted, "SpaceReclaimed": pruned.freed })).into_response())
}

/// `name/json`, `name/history`, `name/get`.
pub(super) async fn get(
    State(app): Shared,
    Path(rest): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Answer {
    let Some((name, verb)) = rest.rsplit_once('/') else {
        return match rest.as_str() {
            "search" => Err(not_yet("searching registries")),
            "get" => {
                save(&app, pairs.into_iter().filter(|(name, _)| name == "names").map(|(_, name)| name).collect()).await
            }
            _ => Err(Refusal::page_not_found()),
        };
    };
    match verb {
        "json" => {
            let image = app.backend.image(name).await?;
            Ok(Json::ok(translate::inspect(&image, STORAGE_DRIVER)).into_response())
        }
        "history" => Err(not_yet("an image's history comes later")),
        "get" => save(&app, vec![name.to_owned()]).await,
        _ => Err(Refusal::page_not_found()),
    }
}

/// `name/tag`, `name/push`.
pub(super) async fn post(State(app): Shared, Path(rest): Path<String>, params: Params) -> Answer {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => {
            let (repo, tag) = (params.text("repo"), params.text("tag"));
            let text = if tag.is_empty() { repo.to_owned() } else { format!("{repo}:{tag}") };
            let target: ImageRef = text.parse().map_err(|e: skep_model::BadImageRef| Error::invalid(e.to_string()))?;
            if target.digest().is_some() {
                return Err(Error::invalid("refusing to create a tag with a digest reference").into());
            }
            app.backend.image_tag(name, target).await?;
            Ok(StatusCode::CREATED.into_response())
        }
        Some((_, "push")) => Err(not_yet("pushing; skep makes no images, so push from where they were made")),
        _ => Err(Refusal::page_not_found()),
    }
}

fn not_yet(what: &str) -> Refusal {
    Error::unimplemented(format!("this version of skep cannot do that yet: {what}")).into()
}

pub(super) async fn remove(State(app): Shared, Path(name): Path<String>, params: Params, body: Body) -> Answer {
    drop(body);
    let removal = if params.flag("force") { Removal::Force } else { Removal::IfUnused };
    let removed = app.backend.image_remove(&name, removal).await.map_err(conflict)?;
    Ok(Json::ok(removed.iter().map(translate::removed).collect::<Vec<_>>()).into_response())
}

/// An image that is in use is a conflict to clients, whatever the store calls it.
fn conflict(error: Error) -> Error {
    match error.kind {
        ErrorKind::FailedPrecondition => Error { kind: ErrorKind::Conflict, ..error },
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn patterns_match_within_slashes() {
        for (pattern, text, expected) in [
            ("nginx", "nginx", true),
            ("nginx", "nginx:1", false),
            ("nginx:*", "nginx:1.27", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
