//! Downloads content, goes on where a connection broke, and checks every byte.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};

use hyper::Method;
use hyper::StatusCode;
use hyper::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use skep_runtime::images::{Digest, Hasher, Images, Workspace};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, Semaphore};

use crate::error::RegistryError;
use crate::http::content_length;
use crate::manifest::Descriptor;
use crate::session::{Answer, Request, Session, rest};

/// Bytes that a try has to bring for the tries to be counted anew: less is no progress.
const PROGRESS: u64 = 64 << 10;

/// Downloads under way, and done and still needed. A layer that two images have is downloaded once.
pub(crate) struct Blobs {
    slots: StdMutex<HashMap<Digest, Weak<Slot>>>,
    /// As many downloads as there may be at the same time.
    turns: Semaphore,
}

/// One blob's place on the disk; it goes with the last who needs it.
pub(crate) struct Slot {
    path: PathBuf,
    whole: Mutex<bool>,
    /// Deleted with the value.
    _workspace: Workspace,
}

impl Slot {
    /// The file with the content.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Blobs {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { slots: StdMutex::default(), turns: Semaphore::new(at_once) }
    }

    fn slot(&self, images: &Images, blob: &Descriptor) -> Result<Arc<Slot>, RegistryError> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.strong_count() > 0);
        if let Some(slot) = slots.get(&blob.digest).and_then(Weak::upgrade) {
            return Ok(slot);
        }
        let workspace = images.workspace()?;
        let path = workspace.file(&blob.digest);
        let slot = Arc::new(Slot { path, whole: Mutex::new(false), _workspace: workspace });
        slots.insert(blob.digest, Arc::downgrade(&slot));
        Ok(slot)
    }

    /// The file with the blob, downloaded unless somebody else has.
    pub(crate) async fn get(
        &self,
        images: &Images,
        session: &Session,
        blob: &Descriptor,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<Arc<Slot>, RegistryError> {
        let slot = self.slot(images, blob)?;
        let mut whole = slot.whole.lock().await;
        if !*whole {
            let _turn = self.turns.acquire().await.map_err(|e| RegistryError::BrokenOff(e.to_string()))?;
            Download::new(session, blob, &slot.path).await?.run(&mut progress).await?;
            *whole = true;
        }
        progress(blob.size);
        drop(whole);
        Ok(slot)
    }
}

struct Download<'a> {
    session: &'a Session,
    blob: &'a Descriptor,
    what: String,
    file: File,
    have: u64,
    hasher: Hasher,
}

impl<'a> Download<'a> {
    async fn new(session: &'a Session, blob: &'a Descriptor, path: &Path) -> Result<Self, RegistryError> {
        let what = format!("blob {} of {}", blob.digest, session.repository);
        let file = File::create(path).await.map_err(|source| RegistryError::Disk { what: what.clone(), source })?;
        Ok(Self { session, blob, what, file, have: 0, hasher: Hasher::default() })
    }

    async fn run(mut self, progress: &mut (impl FnMut(u64) + Send)) -> Result<(), RegistryError> {
        let patience = self.session.http.patience;
        let mut tries = 1;
        loop {
            let before = self.have;
            match self.attempt(progress).await {
                Ok(()) => return self.finish().await,
                Err(e) if e.is_passing() => {
                    if self.have >= before + PROGRESS {
                        tries = 1;
                    }
                    if tries >= patience.tries {
                        return Err(e);
                    }
                    tracing::debug!(blob = %self.blob.digest, have = self.have, of = self.blob.size, "{e}; again in a moment");
                    rest(patience.pause, tries, &e).await;
                    tries += 1;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// One request, from where the last one broke.
    async fn attempt(&mut self, progress: &mut (impl FnMut(u64) + Send)) -> Result<(), RegistryError> {
        if self.have == self.blob.size && self.have > 0 {
            return Ok(());
        }
        let path = format!("blobs/{}", self.blob.digest);
        let mut headers = HeaderMap::new();
        if self.have > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={}-", self.have))
        {
            headers.insert(RANGE, range);
        }
        let request = Request { method: Method::GET, path: &path, headers, what: &self.what };
        let Answer { from, response } = self.session.send(&request).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT || !continues(response.headers(), self.have) {
            self.restart().await?;
        }
        if let Some(length) = content_length(response.headers())
            && self.have + length != self.blob.size
        {
            return Err(self.wrong_size((self.have + length).to_string()));
        }
        let mut body = response.into_body();
        while let Some(part) = self.session.http.next(&from, &mut body).await? {
            if part.len() as u64 > self.blob.size - self.have {
                return Err(self.wrong_size("more".to_owned()));
            }
            self.hasher.update(&part);
            self.file.write_all(&part).await.map_err(|source| self.disk(source))?;
            self.have += part.len() as u64;
            progress(self.have);
        }
        if self.have == self.blob.size {
            return Ok(());
        }
        let reason = format!("it ended after {} of {} bytes", self.have, self.blob.size);
        Err(RegistryError::Broken { registry: from.authority(), reason })
    }

    /// From the beginning: the registry does not do parts.
    async fn restart(&mut self) -> Result<(), RegistryError> {
        self.have = 0;
        self.hasher = Hasher::default();
        self.file.rewind().await.map_err(|source| self.disk(source))?;
        self.file.set_len(0).await.map_err(|source| self.disk(source))
    }

    async fn finish(mut self) -> Result<(), RegistryError> {
        self.file.flush().await.map_err(|source| self.disk(source))?;
        let found = self.hasher.finish();
        let (what, expected) = (self.what, self.blob.digest);
        if found == expected { Ok(()) } else { Err(RegistryError::DigestDiffers { what, expected, found }) }
    }

    fn wrong_size(&self, found: String) -> RegistryError {
        RegistryError::SizeDiffers { what: self.what.clone(), expected: self.blob.size, found }
    }

    fn disk(&self, source: std::io::Error) -> RegistryError {
        RegistryError::Disk { what: self.what.clone(), source }
    }
}

/// Whether a part begins where it was asked for.
fn continues(headers: &HeaderMap, at: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    at > 0 && start == Some(at)
}
