//! Reading JSON by the rules of Go's `encoding/json`: keys of structs match without regard to case, `null` is the zero
//! value, unknown fields are passed over, and what stands behind the value is an error.
//!
//! A [`Value`] is read first and then walked by a deserializer that knows, at each struct, which keys the struct has.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, EnumAccess, IntoDeserializer, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where: `TaskTemplate.Resources.Limits`, outermost first; empty at the top.
    path: Vec<String>,
    message: String,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return write!(f, "json: {}", self.message);
        }
        let path: Vec<&str> = self.path.iter().rev().map(String::as_str).collect();
        write!(f, "json: cannot read field {}: {}", path.join("."), self.message)
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: Vec::new(), message: message.to_string() }
    }
}

/// Reads one value.
///
/// # Errors
/// When the text is no JSON, goes on behind the value, or does not fit the type; the message names the field.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    let value: Value = serde_json::from_slice(text).map_err(serde::de::Error::custom)?;
    from_value(value)
}

/// Reads a value that is JSON already.
///
/// # Errors
/// When it does not fit the type; the message names the field.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Lenient { value, at: None })
}

/// A value, and the field that it was found in.
struct Lenient {
    value: Value,
    at: Option<String>,
}

impl Lenient {
    fn plain(value: Value) -> Self {
        Self { value, at: None }
    }

    fn visit<'de, V: Visitor<'de>>(value: Value, visitor: V) -> Result<V::Value, Error> {
        match value {
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Self::plain));
                let result = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(result)
            }
            Value::Object(map) => visitor.visit_map(MapDeserializer::new(map.into_iter().map(|(k, v)| {
                let at = Some(k.clone());
                (k, Self { value: v, at })
            }))),
            scalar => scalar.deserialize_any(visitor).map_err(serde::de::Error::custom),
        }
    }

    /// Puts the field's name in front of what went wrong below it.
    fn located<T>(at: Option<String>, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|mut e| {
            e.path.extend(at);
            e
        })
    }
}

/// Gives each key the spelling that the struct knows; of two spellings of one key the exact one counts.
fn respell(map: Map<String, Value>, fields: &'static [&'static str]) -> Map<String, Value> {
    let mut known = Map::new();
    for (key, value) in map {
        if value.is_null() {
            continue;
        }
        if fields.contains(&key.as_str()) {
            known.insert(key, value);
        } else if let Some(field) = fields.iter().find(|f| f.eq_ignore_ascii_case(&key)) {
            known.entry(*field).or_insert(value);
        }
    }
    known
}

impl<'de> IntoDeserializer<'de, Error> for Lenient {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        Self::located(self.at, Self::visit(self.value, visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let value = match self.value {
            Value::Object(map) => Value::Object(respell(map, fields)),
            Value::Null => Value::Object(Map::new()),
            other => other,
        };
        Self::located(self.at, Self::visit(value, visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = if self.value.is_null() { Value::Object(Map::new()) } else { self.value };
        Self::located(self.at, Self::visit(value, visitor))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = if self.value.is_null() { Value::Array(Vec::new()) } else { self.value };
        Self::located(self.at, Self::visit(value, visitor))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = if self.value.is_null() { Value::String(String::new()) } else { self.value };
        Self::located(self.at, Self::visit(value, visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::String(variant) => visitor.visit_enum(Variant(variant)),
            other => Self::located(self.at, Err(serde::de::Error::custom(format!("expected a text, found {other}")))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

/// The name of a variant that carries nothing.
struct Variant(String);

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = Self;
    fn variant_seed<S: serde::de::DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let value = seed.deserialize(IntoDeserializer::<Error>::into_deserializer(self.0.as_str()))?;
        Ok((value, self))
    }
}

impl<'de> VariantAccess<'de> for Variant {
    type Error = Error;
    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }
    fn newtype_variant_seed<S: serde::de::DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, Error> {
        Err(serde::de::Error::custom(format!("{:?} carries nothing", self.0)))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom(format!("{:?} carries nothing", self.0)))
    }
    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom(format!("{:?} carries nothing", self.0)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Inner {
        name: String,
        #[serde(rename = "NanoCPUs")]
        nano_cpus: u64,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Outer {
        inner: Inner,
        list: Vec<Inner>,
        labels: BTreeMap<String, String>,
        maybe: Option<bool>,
    }

    #[test]
    fn keys_match_in_any_case_and_null_is_zero() {
        let text = br#"{"INNER":{"name":"a","nanocpus":2,"unknown":[1]},"List":[null,{"NAME":"b"}],"labels":{"Key":null},"Maybe":null}"#;
        let outer: Outer = from_slice(text).unwrap();
        assert_eq!(outer.inner, Inner { name: "a".into(), nano_cpus: 2 });
        assert_eq!(outer.list, [Inner::default(), Inner { name: "b".into(), nano_cpus: 0 }]);
        assert_eq!(outer.labels, BTreeMap::from([("Key".to_owned(), String::new())]));
        assert_eq!(outer.maybe, None);
    }

    #[test]
    fn of_two_spellings_the_exact_one_counts() {
        for text in [r#"{"name":"x","Name":"y"}"#, r#"{"Name":"y","name":"x"}"#] {
            assert_eq!(from_slice::<Inner>(text.as_bytes()).unwrap().name, "y");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let error = from_slice::<Outer>(br#"{"Inner":{"NanoCPUs":-1}}"#).unwrap_err().to_string();
        assert!(error.contains("Inner.NanoCPUs") && error.contains("-1"), "{error}");
        assert!(from_slice::<Outer>(b"{} {}").is_err());
        assert!(from_slice::<Outer>(b"{bad").is_err());
        assert!(from_slice::<Outer>(br#"{"List":"x"}"#).is_err());
    }
}
