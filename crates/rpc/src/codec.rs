//! Objects of the model inside messages.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An object in a message that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the {what} that the other side sent: {why}; do both run the same version of skep?")]
pub struct DecodeError {
    what: &'static str,
    why: serde_json::Error,
}

impl From<DecodeError> for tonic::Status {
    fn from(error: DecodeError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// An object as the bytes of a message.
///
/// # Panics
/// When `object` is not representable in JSON. Every type of the model is.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(object: &T) -> Bytes {
    serde_json::to_vec(object).expect("types of the model are representable in JSON").into()
}

/// The object that [`encode`] wrote. Fields that this version does not know are skipped.
///
/// # Errors
/// When the bytes are no such object.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(bytes).map_err(|why| {
        let path = std::any::type_name::<T>();
        DecodeError { what: path.rsplit("::").next().unwrap_or(path), why }
    })
}

#[cfg(test)]
mod tests {
    use skep_model::{NodeId, OwnerTable, Version};

    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let node = NodeId::random();
        assert_eq!(decode::<NodeId>(&encode(&node)).unwrap(), node);
        assert_eq!(decode::<Version>(&encode(&Version(7))).unwrap(), Version(7));
    }

    #[test]
    fn the_error_names_what_could_not_be_read() {
        let error = decode::<OwnerTable>(b"{").unwrap_err().to_string();
        assert!(error.contains("cannot read the OwnerTable"), "{error}");
    }
}
