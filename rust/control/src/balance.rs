//! Which instance a connection of a reader endpoint goes to.

/// A reader that is further behind than this is taken only when every other one is, too.
pub const LAG_US_MAX: i64 = 1_000_000;

/// A reader that could be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reader {
    /// Views and transactions that are open there.
    pub connections: usize,
    /// How far it is behind.
    pub lag_us: i64,
}

/// The reader to take: of those that keep up the one with the fewest connections; among equals the one after `turn`, so that they
/// take turns.
pub fn pick(readers: &[Reader], turn: usize) -> Option<usize> {
    let count = readers.len();
    let order = (0..count).map(|n| (turn % count.max(1) + n) % count);
    order.min_by_key(|&n| {
        let behind = readers[n].lag_us > LAG_US_MAX;
        (
            behind,
            if behind { readers[n].lag_us } else { 0 },
            readers[n].connections,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(connections: usize, lag_us: i64) -> Reader {
        Reader {
            connections,
            lag_us,
        }
    }

    #[test]
    fn few_connections_first_unless_behind_and_equals_take_turns() {
        assert_eq!(pick(&[], 3), None);
        let equal = [reader(0, 5), reader(0, 9), reader(0, 0)];
        let turns: Vec<_> = (0..4).map(|turn| pick(&equal, turn)).collect();
        assert_eq!(turns, [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(pick(&[reader(2, 0), reader(1, 900_000)], 0), Some(1));
        assert_eq!(pick(&[reader(2, 0), reader(1, LAG_US_MAX + 1)], 0), Some(0));
        let late = [reader(0, LAG_US_MAX + 9), reader(7, LAG_US_MAX + 1)];
        assert_eq!(pick(&late, 0), Some(1));
    }
}
