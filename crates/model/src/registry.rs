//! What a person proves to a registry.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What lets somebody in at a registry. Its `Debug` says nothing of the secret.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RegistryAuth {
    /// A name and a password.
    Password {
        /// Who.
        username: String,
        /// The secret.
        password: String,
    },
    /// A refresh token (OAuth 2) that the registry's token server takes for new tokens.
    IdentityToken(String),
    /// A token that the registry takes as it is.
    RegistryToken(String),
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "RegistryAuth(password of {username:?})"),
            Self::IdentityToken(_) => f.write_str("RegistryAuth(identity token)"),
            Self::RegistryToken(_) => f.write_str("RegistryAuth(registry token)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let all = [
            RegistryAuth::Password { username: "ann".into(), password: "hunter2".into() },
            RegistryAuth::IdentityToken("hunter2".into()),
            RegistryAuth::RegistryToken("hunter2".into()),
        ];
        assert!(!format!("{all:?}").contains("hunter2"));
    }
}
