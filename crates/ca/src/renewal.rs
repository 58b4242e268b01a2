//! When a certificate is renewed.

use skep_model::Timestamp;

/// When to ask for the certificate that follows one that was issued then and is valid until then: at some moment between 50 % and 80 % of its life. `seed` says which one;
/// with a random seed the nodes of a swarm that were made at the same time do not all come at the same time.
///
/// Before 50 % it would be renewed more often than it helps; after 80 % a manager that is away for long could be missed (a fifth of
/// 90 days is 18).
#[must_use]
pub fn renew_at(issued: Timestamp, not_after: Timestamp, seed: u64) -> Timestamp {
    let (begin, end) = (i128::from(issued.as_second()), i128::from(not_after.as_second()));
    let life = (end - begin).max(0);
    let early = life / 2;
    let spread = life * 3 / 10;
    let at = begin + early + spread * i128::from(seed) / i128::from(u64::MAX);
    // Between two times that are representable there are only others that are.
    i64::try_from(at).ok().and_then(|at| Timestamp::from_second(at).ok()).unwrap_or(issued)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400;

    fn day(day: i64) -> Timestamp {
        Timestamp::from_second(day * DAY).unwrap()
    }

    #[test]
    fn the_extremes_are_half_and_four_fifths() {
        assert_eq!(renew_at(day(0), day(90), 0), day(45));
        assert_eq!(renew_at(day(0), day(90), u64::MAX), day(72));
    }

    proptest! {
        #[test]
        fn it_is_always_between_half_and_four_fifths(begin in 0i64..4_000_000_000, life in 1i64..1_000_000_000, seed: u64) {
            let at = |second| Timestamp::from_second(second).unwrap();
            let due = renew_at(at(begin), at(begin + life), seed).as_second() - begin;
            prop_assert!(due >= life / 2 && due <= life * 8 / 10, "{due} of {life}");
        }

        #[test]
        fn no_two_times_make_it_panic(begin in -377_705_023_201i64..253_402_207_200, end in -377_705_023_201i64..253_402_207_200, seed: u64) {
            let at = |second| Timestamp::from_second(second).unwrap();
            prop_assert!(renew_at(at(begin), at(end), seed) >= at(begin));
        }
    }
}
