//! What has happened to a cluster's instances and copies, and how long it took. The latest are kept, in memory.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::wall_us;

/// Events that are kept; the oldest go first.
const EVENTS_MAX: usize = 1000;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in microseconds since 1970.
    pub time_us: i64,
    /// What: `failover`, `replica added`, ...
    pub what: &'static str,
    /// The instance or node that it happened to.
    pub who: String,
    /// More, in words.
    pub detail: Option<String>,
    /// How long it took, where it took a while.
    pub took: Option<Duration>,
}

/// The latest events.
#[derive(Default)]
pub(crate) struct Events(Mutex<VecDeque<Event>>);

impl Events {
    pub(crate) fn note(
        &self,
        what: &'static str,
        who: &str,
        detail: Option<String>,
        took: Option<Duration>,
    ) {
        let event = Event {
            time_us: wall_us(),
            what,
            who: who.to_owned(),
            detail,
            took,
        };
        let mut events = self.0.lock();
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// The oldest first.
    pub(crate) fn list(&self) -> Vec<Event> {
        self.0.lock().iter().cloned().collect()
    }
}
