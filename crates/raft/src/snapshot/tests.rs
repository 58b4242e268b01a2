//! No bytes make the reading of snapshots panic, or pass for another snapshot.

use proptest::prelude::*;

use super::*;

fn vault() -> Vault {
    let dir = tempfile::tempdir().unwrap();
    Vault::open_or_make(dir.path(), None).unwrap()
}

/// A snapshot whose checksum is right, whatever it has inside.
fn with_checksum(packed: &[u8]) -> Vec<u8> {
    [HEADER, &Sha256::digest(packed), packed].concat()
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decode(&bytes).is_err());
        prop_assert!(decode(&with_checksum(&bytes)).is_err());
        let vault = vault();
        let path = Path::new("snap-00000000000000000001");
        prop_assert!(unseal_and_decode(&vault, path, &bytes).is_err());
        prop_assert!(unseal_and_decode(&vault, path, &[FILE_HEADER, &bytes].concat()).is_err());
        prop_assert!(unseal_and_decode(&vault, path, &[FILE_HEADER, b"2\n", &bytes].concat()).is_err());
        // Well sealed, and nothing sensible inside.
        prop_assert!(unseal_and_decode(&vault, path, &seal(&vault, b"snap-00000000000000000001", &bytes)).is_err());
    }

    #[test]
    fn whole_packages_with_anything_inside_are_refused(
        length in prop_oneof![0u32..400, any::<u32>()],
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let plain = [&length.to_be_bytes(), &bytes[..]].concat();
        let packed = zstd::encode_all(&plain[..], 1).unwrap();
        prop_assert!(decode(&with_checksum(&packed)).is_err());
    }

    #[test]
    fn a_changed_snapshot_is_refused(at in any::<prop::sample::Index>(), mask in 1u8..) {
        let good = encode(&SnapshotMeta::default(), &Tables::default()).unwrap();
        prop_assert!(decode(&good).is_ok());
        let mut bad = good.to_vec();
        let at = at.index(bad.len());
        bad[at] ^= mask;
        prop_assert!(decode(&bad).is_err());
    }
}
