//! What containers need of volumes: made, mounted and filled before they start, unmounted when they have ended.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use sha2::{Digest, Sha256};
use skep_model::{LocalVolume, VolumeOptions, check_volume_name};

use super::{Made, NewVolume, VolumeError, Volumes, fill, mount};
use crate::container::ContainerId;
use crate::events::VolumeAction;

/// The volumes of a container.
#[derive(Debug, Default)]
pub(super) struct Use {
    pub(super) names: BTreeSet<String>,
    /// Whether the container may still run: only then is something mounted for it.
    pub(super) live: bool,
}

/// Which content an empty volume gets.
pub(crate) struct Content<'a> {
    /// The root file system of a container.
    pub(crate) rootfs: &'a Path,
    /// The directory in it.
    pub(crate) target: &'a Path,
}

/// Whether a container may still run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Live {
    Yes,
    No,
}

impl Volumes {
    /// Tells of a container that an earlier daemon has made.
    pub(crate) fn restore(&self, id: &ContainerId, names: &BTreeSet<String>, live: Live) {
        if !names.is_empty() {
            let used = Use { names: names.clone(), live: live == Live::Yes };
            self.users().insert(id.clone(), used);
        }
    }

    /// Once all containers are told of: unmounts what none of them needs, removes what has gone with its container.
    pub(crate) fn settle(&self) {
        for name in self.entries().unwrap_or_default() {
            let Ok(Some(made)) = self.read(&name) else { continue };
            let orphan = made.owner.is_some() && self.users_of(&name, |_| true).is_empty();
            let settled = if orphan { self.remove(&name) } else { self.rest(&name) };
            if let Err(e) = settled {
                tracing::warn!(volume = %name, "{e}");
            }
        }
    }

    /// Has a volume ready for a container: made, mounted, filled. Returns its name and where it is. Without a name it is a fresh one that goes
    /// with the container; `number` tells several of those apart.
    pub(crate) fn take(
        &self,
        id: &ContainerId,
        (name, number): (Option<&str>, usize),
        options: &VolumeOptions,
        content: &Content<'_>,
    ) -> Result<(String, PathBuf), VolumeError> {
        let own = || hex::encode(Sha256::digest(format!("{id}/{number}")));
        let owner = name.is_none().then(|| id.clone());
        let given = name.map(str::to_owned);
        let name = given.clone().unwrap_or_else(own);
        check_volume_name(&name)?;
        if let Some(driver) = &options.driver {
            driver.check()?;
        }
        // Before the lock: whoever unmounts looks for users after taking it.
        let mut users = self.users();
        let used = users.entry(id.clone()).or_default();
        used.live = true;
        used.names.insert(name.clone());
        drop(users);
        let lock = self.lock(&name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let new = NewVolume { name: given, labels: options.labels.clone(), options: options.driver_options() };
        let made = self.made(&name, &Made::new(&new, owner))?;
        self.mount(&name, &made)?;
        if !options.no_copy {
            let data = self.mountpoint(&name);
            let shared = self.users_of(&name, |used| used.live).len() > 1 || !made.options.is_empty();
            let way = if shared { fill::Way::InPlace } else { fill::Way::Aside(self.root.join(&name).join("filling")) };
            fill::fill(&data, content, &way).map_err(VolumeError::io("fill volume", &data))?;
        }
        let place = self.mountpoint(&name);
        Ok((name, place))
    }

    /// Has ready again what a container needs, before each start: the machine may have been started again since, or a start has failed.
    pub(crate) fn take_again(&self, id: &ContainerId, names: &BTreeSet<String>) -> Result<(), VolumeError> {
        self.restore(id, names, Live::Yes);
        for name in names {
            let lock = self.lock(name);
            let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
            let made = self.read(name)?.ok_or_else(|| VolumeError::NotFound(name.clone()))?;
            self.mount(name, &made)?;
        }
        Ok(())
    }

    fn mount(&self, name: &str, made: &Made) -> Result<(), VolumeError> {
        let Some(local) = LocalVolume::of(&made.options)? else { return Ok(()) };
        let place = self.mountpoint(name);
        if mount::is_mounted(&place) {
            return Ok(());
        }
        let mounted = mount::mount(&local, &place).map_err(|reason| VolumeError::Mount {
            name: name.to_owned(),
            kind: local.kind.clone(),
            device: local.device.clone(),
            reason,
        });
        mounted.inspect(|()| self.events.volume(name, VolumeAction::Mount))
    }

    /// Unmounts a volume that no container needs mounted.
    fn rest(&self, name: &str) -> Result<(), VolumeError> {
        let lock = self.lock(name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.users_of(name, |used| used.live).is_empty() { self.unmount(name) } else { Ok(()) }
    }

    /// The container has ended: what is mounted for it alone is unmounted. Does nothing the second time. Goes on after errors.
    pub(crate) fn release(&self, id: &ContainerId) {
        let names = match self.users().get_mut(id) {
            Some(used) if used.live => {
                used.live = false;
                used.names.clone()
            }
            _ => return,
        };
        for name in names {
            if let Err(e) = self.rest(&name) {
                tracing::warn!(container = %id, "{e}");
            }
        }
    }

    /// The container is gone, and with it its volumes that have no name. Goes on after errors.
    pub(crate) fn forget(&self, id: &ContainerId) {
        self.release(id);
        let Some(used) = self.users().remove(id) else { return };
        for name in used.names {
            let owned = self.read(&name).ok().flatten().is_some_and(|made| made.owner.as_ref() == Some(id));
            if owned && let Err(e) = self.remove(&name) {
                tracing::warn!(container = %id, "{e}");
            }
        }
    }
}
