//! No bytes make the reading of values panic.

use proptest::prelude::*;

use super::*;

/// As anything that a value can be.
fn read(vault: &Vault, value: &[u8]) -> [bool; 4] {
    let what = || "it".to_owned();
    [
        open_entry(vault, 7, value).is_ok(),
        unseal::<Vote>(vault, &fact_name(VOTE), value, &what).is_ok(),
        unseal::<Option<LogId>>(vault, &fact_name(LAST), value, &what).is_ok(),
        format::decode(value).is_ok(),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open_or_make(dir.path(), None).unwrap();
        prop_assert_eq!(read(&vault, &bytes), [false; 4]);
        // Well sealed, and nothing sensible inside. Some few bytes are a number or nothing in JSON, which is no id either.
        for name in [entry_name(7), fact_name(VOTE)] {
            prop_assert_eq!(read(&vault, &vault.seal(&name, &bytes)), [false; 4]);
        }
    }

    #[test]
    fn well_sealed_json_of_any_shape_is_refused(
        term in any::<u64>(), index in any::<i64>(), field in "term|node_id|leader_id|index|payload|[a-z]{1,5}",
    ) {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open_or_make(dir.path(), None).unwrap();
        let json = serde_json::json!({ "leader_id": { field.as_str(): term }, "index": index, field.as_str(): [term] });
        let sealed = vault.seal(&entry_name(7), json.to_string().as_bytes());
        prop_assert!(open_entry(&vault, 7, &sealed).is_err());
    }
}
