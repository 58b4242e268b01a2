//! Numbers as digits and small letters, padded with zeros to a fixed length.

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// `bytes` as one big number (most significant byte first) in `LENGTH` digits. The number must fit: 36^`LENGTH` > 256^`bytes`.
pub(crate) fn encode<const LENGTH: usize>(bytes: &[u8]) -> String {
    let mut number = bytes.to_vec();
    let mut digits = [b'0'; LENGTH];
    for digit in digits.iter_mut().rev() {
        // Long division by 36: the remainder is the next digit from the right.
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = remainder * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 36).expect("remainder < 36, so the quotient fits a byte");
            remainder = value % 36;
        }
        *digit = DIGITS[remainder as usize];
    }
    digits.iter().map(|&d| char::from(d)).collect()
}

/// Whether `text` is `length` digits.
pub(crate) fn well_formed(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| DIGITS.contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_numbers_are_as_one_would_write_them() {
        assert_eq!(encode::<4>(&[0]), "0000");
        assert_eq!(encode::<4>(&[35]), "000z");
        assert_eq!(encode::<4>(&[36]), "0010");
        assert_eq!(encode::<4>(&[1, 0]), "0074"); // 256 = 7 * 36 + 4
    }

    proptest! {
        #[test]
        fn agrees_with_division_of_machine_numbers(number: u128) {
            let mut left = number;
            let mut expected = vec![0u8; 25];
            for digit in expected.iter_mut().rev() {
                *digit = DIGITS[(left % 36) as usize];
                left /= 36;
            }
            prop_assert_eq!(encode::<25>(&number.to_be_bytes()).into_bytes(), expected);
        }
    }

    #[test]
    fn the_largest_digest_fits_fifty_digits() {
        // Were 50 digits too few, the first digit would be a full-range one; 2^256 is about 0.18 * 36^50.
        let text = encode::<50>(&[0xff; 32]);
        assert!(well_formed(&text, 50));
        assert!(text.starts_with('6'), "{text}");
    }
}
