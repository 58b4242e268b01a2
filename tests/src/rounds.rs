//! Times of rounds, for benches: medians, spans, ratios.

use std::time::Duration;

/// What the same work took in several rounds.
#[derive(Debug, Default)]
pub struct Rounds(Vec<Duration>);

impl Rounds {
    /// One more round.
    pub fn add(&mut self, took: Duration) {
        self.0.push(took);
        self.0.sort_unstable();
    }

    /// The one in the middle.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    /// As a row of a table: the median, the lowest, the highest, and the median as a share of another one's.
    #[must_use]
    pub fn row(&self, what: &str, beside: &Self) -> String {
        let ms = |took: Duration| format!("{:.1} ms", took.as_secs_f64() * 1000.0);
        let share = self.median().as_secs_f64() / beside.median().as_secs_f64();
        let (first, last) = (self.0.first().copied(), self.0.last().copied());
        let [lowest, highest] = [first, last].map(|took| ms(took.unwrap_or_default()));
        format!("| {what} | **{}** | {lowest} | {highest} | {share:.2} |", ms(self.median()))
    }
}

/// The head of a table of [`Rounds::row`]s.
pub const TITLES: &str = "| | median | lowest | highest | share |\n|---|---|---|---|---|";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_its_share() {
        let rounds = |times: &[u64]| {
            let mut all = Rounds::default();
            times.iter().for_each(|ms| all.add(Duration::from_millis(*ms)));
            all
        };
        let (fast, slow) = (rounds(&[9, 1, 2]), rounds(&[4, 4]));
        assert_eq!(fast.row("x", &slow), "| x | **2.0 ms** | 1.0 ms | 9.0 ms | 0.50 |");
    }
}
