//! A lab that ends with its owner.

use std::ops::Deref;

use crate::lab::Lab;

/// Takes the lab down when dropped, unless it is kept.
#[derive(Debug)]
pub struct LabGuard {
    lab: Option<Lab>,
}

impl LabGuard {
    /// Guards a lab.
    #[must_use]
    pub fn new(lab: Lab) -> Self {
        Self { lab: Some(lab) }
    }

    /// Lets the lab live on.
    #[must_use]
    pub fn keep(mut self) -> Lab {
        self.lab.take().expect("only keep and drop take it, and each ends the guard")
    }
}

impl Deref for LabGuard {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.lab.as_ref().expect("only keep and drop take it, and each ends the guard")
    }
}

impl Drop for LabGuard {
    fn drop(&mut self) {
        if let Some(lab) = self.lab.take()
            && let Err(error) = lab.down()
        {
            tracing::error!(lab = lab.name(), %error, "the lab could not be taken down");
        }
    }
}
