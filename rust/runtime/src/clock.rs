//! The wall clock: the one place where the project reads the time of day.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970. The engine makes commit times rise even when this falls.
pub(crate) fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |elapsed| {
        i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
    })
}
