//! No bytes make the reading of keys and sealed values panic, or pass for others.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn any_bytes_are_no_key_file(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(key_file::decode(Path::new("key.json"), &bytes).is_err());
    }

    #[test]
    fn any_json_is_no_key_file(version in prop_oneof![Just(1), any::<u32>()], kind in "plain|sealed|other", text in ".{0,60}", check in "[0-9a-f]{0,16}") {
        let json = serde_json::json!({ "version": version, "key": { kind: text }, "check": check });
        prop_assert!(key_file::decode(Path::new("key.json"), json.to_string().as_bytes()).is_err());
    }

    #[test]
    fn any_text_is_an_unlock_key_or_is_refused(text in "(SWMKEY-1-)?([A-Za-z0-9+/=]{0,60}|[A-Za-z0-9+/]{42,44}={0,2})") {
        if let Ok(key) = text.parse::<UnlockKey>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn what_was_sealed_opens_under_its_key_and_name_alone(
        name in prop::collection::vec(any::<u8>(), 0..20),
        other in prop::collection::vec(any::<u8>(), 0..20),
        body in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        mask in 1u8..,
    ) {
        let [key, another] = [SealingKey::new(&[7; 32]), SealingKey::new(&[8; 32])];
        let sealed = key.seal(&name, &body);
        prop_assert_eq!(key.open(&name, &sealed), Some(body.clone()));
        prop_assert_eq!(another.open(&name, &sealed), None);
        prop_assert_eq!(key.open(&other, &sealed).is_some(), other == name);
        let mut bad = sealed.clone();
        let at = at.index(bad.len());
        bad[at] ^= mask;
        prop_assert_eq!(key.open(&name, &bad), None);
        prop_assert_eq!(key.open(&name, &sealed[..at]), None);
        prop_assert_eq!(key.open(&name, &body), None);
    }
}
