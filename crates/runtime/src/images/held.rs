//! Images that are kept because somebody is about to use them, or uses them.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::ImageError;
use super::{Image, ImageId, Images, Removal, Removed, State};

/// An image that is not removed as long as this value lives: whoever makes a container of it holds it until the container is there.
#[derive(Debug)]
pub struct Held {
    image: Image,
    state: Arc<Mutex<State>>,
}

impl Held {
    pub(super) fn new(image: Image, shared: &Arc<Mutex<State>>, state: &mut State) -> Self {
        *state.held.entry(image.id).or_default() += 1;
        Self { image, state: shared.clone() }
    }
}

impl Deref for Held {
    type Target = Image;

    fn deref(&self) -> &Image {
        &self.image
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.released += 1;
        if let Some(count) = state.held.get_mut(&self.image.id) {
            *count -= 1;
        }
        state.held.retain(|_, count| *count > 0);
    }
}

/// What [`Images::prune`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// Images without a tag.
    Untagged,
    /// All images.
    Unused,
}

/// A moment in the life of the store: see [`Images::moment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(u64);

/// The images that containers use, looked up after a moment.
#[derive(Debug, Clone)]
pub struct InUse {
    moment: Moment,
    images: BTreeSet<ImageId>,
}

impl InUse {
    /// What containers used when somebody looked after `moment`.
    #[must_use]
    pub fn new(moment: Moment, images: BTreeSet<ImageId>) -> Self {
        Self { moment, images }
    }

    /// These, and those that are held now. An image that was let go since the moment may be used by a container that was not seen.
    pub(super) fn and_held(&self, state: &State) -> Result<BTreeSet<ImageId>, ImageError> {
        if self.moment.0 != state.released {
            return Err(ImageError::Moved);
        }
        Ok(self.images.iter().chain(state.held.keys()).copied().collect())
    }
}

impl Images {
    /// As [`Images::find`]; the image stays as long as the result lives.
    ///
    /// # Errors
    /// As [`Images::find`].
    pub fn hold(&self, text: &str) -> Result<Held, ImageError> {
        let mut state = self.state();
        let image = state.index.find(text)?.image;
        Ok(Held::new(image, &self.state, &mut state))
    }

    /// Removes the images that no container uses: all of them, or those without a tag. Returns what went, and how many bytes are free now.
    ///
    /// # Errors
    /// [`ImageError::Moved`] when `in_use` is too old to tell.
    pub fn prune(&self, prune: Prune, in_use: &InUse) -> Result<(Vec<Removed>, u64), ImageError> {
        let mut state = self.state();
        let in_use = in_use.and_held(&state)?;
        let mut index = state.index.clone();
        let before = index.bytes(&self.root);
        let tagged = |image: &Image| image.refs.iter().any(|name| name.tag().is_some());
        let useless = |image: &&Image| !in_use.contains(&image.id) && (prune == Prune::Unused || !tagged(image));
        let ids: Vec<ImageId> = index.images.values().filter(useless).map(|image| image.id).collect();
        let mut removed = Vec::new();
        for id in ids {
            removed.extend(index.remove(&id.to_string(), Removal::Forced, &in_use)?);
        }
        let freed = before.saturating_sub(index.bytes(&self.root));
        index.write(&self.root)?;
        state.index = index;
        self.collect(&mut state)?;
        Ok((removed, freed))
    }

    /// To be asked before it is looked which images containers use.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment(self.state().released)
    }
}
