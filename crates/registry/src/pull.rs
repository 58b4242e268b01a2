//! From a registry into the store.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use skep_model::{ImageRef, RegistryAuth};
use skep_runtime::images::{Digest, Held, ImageError, Images, Incoming, Limits, LoadEvent};
use tokio::task::JoinSet;

use crate::blob::{Blobs, Slot};
use crate::config::{Mirror, RegistryConfig};
use crate::error::RegistryError;
use crate::flight::{Flight, LayerState, Log, News, PullEvent, Pulling};
use crate::http::{Http, SharedHttp};
use crate::manifest::{Descriptor, Manifest, Platform};
use crate::repository::Repository;
use crate::session::Session;

/// Layers that are downloaded at the same time, of all images together; Docker's number.
const AT_ONCE: usize = 3;
/// The registry whose images the mirrors have.
const DOCKER: &str = "docker.io";

/// What is to be pulled, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PullRequest {
    /// The image.
    pub reference: ImageRef,
    /// Who asks.
    pub auth: Option<RegistryAuth>,
    /// The kind of machine that it is for; `None` is this one.
    pub platform: Option<Platform>,
}

/// What a reference means to its registry now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// What kind of document it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// The kinds of machines that there is an image for.
    pub platforms: Vec<Platform>,
}

/// Brings images from registries into the store of this node. Cheap to clone.
#[derive(Clone)]
pub struct Puller(Arc<Inner>);

struct Inner {
    images: Arc<Images>,
    http: SharedHttp,
    mirrors: Vec<Mirror>,
    blobs: Blobs,
    flights: Mutex<HashMap<PullRequest, Flight>>,
}

impl Puller {
    /// For this store.
    #[must_use]
    pub fn new(images: Arc<Images>, config: &RegistryConfig) -> Self {
        Self(Arc::new(Inner {
            images,
            http: Arc::new(Http::new(config)),
            mirrors: config.mirrors.clone(),
            blobs: Blobs::new(AT_ONCE),
            flights: Mutex::default(),
        }))
    }

    /// Begins to pull, or joins whoever pulls the same for the same person. It goes on as long as somebody waits for it.
    #[must_use]
    pub fn pull(&self, request: PullRequest) -> Pulling {
        let mut flights = self.0.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pulling) = flights.get(&request).and_then(Flight::join) {
            return pulling;
        }
        flights.retain(|_, flight| flight.join().is_some());
        let log = Log::default();
        let work = Work { inner: self.0.clone(), request: request.clone(), log: log.clone() };
        let work = async move { work.run().await.map_err(Arc::new) };
        let (flight, pulling) = Flight::begin(log, work.boxed());
        flights.insert(request, flight);
        pulling
    }

    /// Asks the registry what a reference means.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub async fn inspect(
        &self,
        reference: &ImageRef,
        auth: Option<RegistryAuth>,
    ) -> Result<Distribution, RegistryError> {
        let mut trouble = None;
        for place in self.0.places(reference, auth).await? {
            match Repository::new(place, reference).describe().await {
                Ok(found) => return Ok(found),
                Err(e) => drop(trouble.insert(e)),
            }
        }
        Err(trouble.unwrap_or_else(|| RegistryError::BrokenOff("there is no registry to ask".to_owned())))
    }

    /// Tries credentials at a registry.
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`] when it refuses them.
    pub async fn login(&self, registry: &str, auth: RegistryAuth) -> Result<(), RegistryError> {
        let base = self.0.http.registry(registry).await?;
        let session = Session::new(self.0.http.clone(), base, registry, "", Some(auth));
        session.ping().await
    }
}

impl Inner {
    /// Where an image may be had, in the order of asking. Mirrors are not told who asks: the credentials are not for them.
    async fn places(&self, reference: &ImageRef, auth: Option<RegistryAuth>) -> Result<Vec<Session>, RegistryError> {
        let (domain, path) = (reference.domain(), reference.path());
        let mirrors = self
            .mirrors
            .iter()
            .filter(|_| domain == DOCKER)
            .map(|mirror| Session::new(self.http.clone(), mirror.0.clone(), &mirror.0.authority(), path, None));
        let mut places: Vec<Session> = mirrors.collect();
        match self.http.registry(domain).await {
            Ok(base) => places.push(Session::new(self.http.clone(), base, domain, path, auth)),
            Err(e) if places.is_empty() => return Err(e),
            Err(e) => tracing::debug!("{e}; its mirrors are asked"),
        }
        Ok(places)
    }
}

/// One pull.
struct Work {
    inner: Arc<Inner>,
    request: PullRequest,
    log: Log,
}

impl Work {
    async fn run(self) -> Result<Arc<Held>, RegistryError> {
        let reference = &self.request.reference;
        if let Some(digest) = reference.digest().and_then(|digest| digest.parse().ok())
            && let Some(held) = self.stored(&reference.to_string()).await?
        {
            return Ok(self.done(held, digest, News::UpToDate));
        }
        let mut trouble = None;
        for place in self.inner.places(reference, self.request.auth.clone()).await? {
            let from = place.base.authority();
            match self.from(Repository::new(place, reference)).await {
                Ok(held) => return Ok(held),
                Err(e) => {
                    tracing::debug!(image = %reference.familiar(), %from, "cannot be pulled: {e}");
                    trouble = Some(e);
                }
            }
        }
        Err(trouble.unwrap_or_else(|| RegistryError::BrokenOff("there is no registry to ask".to_owned())))
    }

    /// What the store has under a name, if it is for the machine that is asked for.
    async fn stored(&self, name: &str) -> Result<Option<Held>, RegistryError> {
        let (name, platform) = (name.to_owned(), self.request.platform.clone());
        let found = self.blocking(move |images| match images.hold(&name) {
            Err(ImageError::NotFound(_)) => Ok(None),
            found => found.map(Some),
        });
        let suits = |held: &Held| platform.is_none_or(|wanted| wanted.architecture == held.config.architecture);
        Ok(found.await?.filter(suits))
    }

    fn found(&self) {
        let reference = &self.request.reference;
        let wanted = reference.digest().or(reference.tag()).unwrap_or_default().to_owned();
        self.log.tell(PullEvent::Found { repository: reference.path().to_owned(), wanted });
    }

    fn done(&self, held: Held, digest: Digest, news: News) -> Arc<Held> {
        if news == News::UpToDate {
            self.found();
        }
        self.log.tell(PullEvent::Pulled { digest, news });
        Arc::new(held)
    }

    async fn from(&self, repository: Repository) -> Result<Arc<Held>, RegistryError> {
        let reference = &self.request.reference;
        if let Some(digest) = repository.digest().await?
            && let Some(held) = self.stored(&reference.by_digest(&digest.to_string()).to_string()).await?
        {
            let named = held.refs.contains(reference);
            if !named && reference.digest().is_none() {
                let (id, name) = (held.id, reference.clone());
                self.blocking(move |images| images.tag(&id, &name)).await?;
            }
            return Ok(self.done(held, digest, if named { News::UpToDate } else { News::Newer }));
        }
        let platform = self.request.platform.clone().unwrap_or_else(Platform::own);
        let (digest, manifest) = repository.image(&platform).await?;
        self.found();
        let config = repository.small(&manifest.config, "the configuration").await?;
        let count = manifest.layers.len();
        let store = self.inner.images.clone();
        let incoming = self.blocking(move |_| store.receive(config.to_vec(), count)).await?;
        let incoming = Tidy(Some(Arc::new(incoming)));
        incoming.get().check_platform(&platform.os, &platform.architecture)?;
        self.layers(&repository, &manifest, incoming.get()).await?;
        let (image, name) = (incoming.get(), reference.clone());
        let held = self.blocking(move |_| image.commit(&name, digest)).await?;
        Ok(self.done(held, digest, News::Newer))
    }

    /// Downloads the layers that the store lacks, some at the same time, and unpacks them one after the other.
    async fn layers(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        incoming: Arc<Incoming>,
    ) -> Result<(), RegistryError> {
        let mut downloads = JoinSet::new();
        let mut expected = Vec::new();
        for (number, layer) in manifest.layers.iter().enumerate() {
            let id = layer.digest.short();
            if incoming.has(number) {
                self.log.layer(&id, LayerState::Exists);
                continue;
            }
            if layer.size > Limits::default().bytes {
                return Err(RegistryError::TooBig {
                    what: format!("layer {}", layer.digest),
                    limit: Limits::default().bytes,
                });
            }
            self.log.layer(&id, LayerState::Queued);
            expected.push(number);
            let (inner, log) = (self.inner.clone(), self.log.clone());
            let (session, layer) = (repository.session(), layer.clone());
            downloads.spawn(async move { (number, download(&inner, &session, &layer, &log).await) });
        }
        let mut ready: HashMap<usize, Arc<Slot>> = HashMap::new();
        for number in expected {
            while !ready.contains_key(&number) {
                let Some(joined) = downloads.join_next().await else { break };
                let (done, slot) = joined.map_err(|e| RegistryError::BrokenOff(e.to_string()))?;
                ready.insert(done, slot?);
            }
            if let Some(slot) = ready.remove(&number) {
                self.unpack(incoming.clone(), number, &manifest.layers[number], slot).await?;
            }
        }
        Ok(())
    }

    async fn unpack(
        &self,
        incoming: Arc<Incoming>,
        number: usize,
        layer: &Descriptor,
        slot: Arc<Slot>,
    ) -> Result<(), RegistryError> {
        let (log, id, layer) = (self.log.clone(), layer.digest.short(), layer.clone());
        self.blocking(move |_| {
            let file = File::open(slot.path()).map_err(|source| ImageError::Io {
                doing: "open",
                path: slot.path().to_owned(),
                source,
            })?;
            let mut progress = |event| {
                if let LoadEvent::Layer { done, total, .. } = event {
                    log.layer(&id, LayerState::Extracting { done, total });
                }
            };
            incoming.put(number, &file, layer.size, layer.digest, &mut progress)?;
            log.layer(&id, LayerState::Complete);
            Ok(())
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Images) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let images = self.inner.images.clone();
        let joined = tokio::task::spawn_blocking(move || work(&images)).await;
        Ok(joined.map_err(|e| RegistryError::BrokenOff(e.to_string()))??)
    }
}

async fn download(inner: &Inner, session: &Session, layer: &Descriptor, log: &Log) -> Result<Arc<Slot>, RegistryError> {
    let (id, total) = (layer.digest.short(), layer.size);
    let step = (total / 50).max(256 << 10);
    let mut next = step;
    let progress = |done: u64| {
        // It goes back when a registry begins anew.
        if done >= next || done + step < next {
            next = done - done % step + step;
            log.layer(&id, LayerState::Downloading { done, total });
        }
    };
    let slot = inner.blobs.get(&inner.images, session, layer, progress).await?;
    log.layer(&id, LayerState::Downloaded);
    Ok(slot)
}

/// Gives up what was begun where that does not hold up others: layers are deleted.
struct Tidy(Option<Arc<Incoming>>);

impl Tidy {
    fn get(&self) -> Arc<Incoming> {
        self.0.clone().expect("it is taken when the value is dropped")
    }
}

impl Drop for Tidy {
    fn drop(&mut self) {
        let incoming = self.0.take();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(incoming))),
            Err(_) => drop(incoming),
        }
    }
}
