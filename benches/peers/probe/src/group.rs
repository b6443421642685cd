//! Group commit with nothing around it: what waits together is written and synced together.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::stripes::Stripes;

/// Threads that commit: one of them leads, writes everything pending and syncs once; the rest wait.
pub struct GroupCommit {
    state: Mutex<State>,
    synced: Condvar,
}

struct State {
    /// Frames that no leader has taken yet.
    pending: Vec<u8>,
    /// An emptied buffer, kept so that a round allocates nothing.
    spare: Vec<u8>,
    /// Tickets given so far; the last one stands in `pending`.
    issued: u64,
    /// Every ticket up to this one is on disk.
    durable: u64,
    /// The file, while nobody leads.
    stripes: Option<Stripes>,
    /// The first failed write or sync: nothing is tried after it.
    failed: Option<String>,
    syncs: u64,
}

impl GroupCommit {
    pub fn new(stripes: Stripes) -> Self {
        let state = State {
            pending: Vec::new(),
            spare: Vec::new(),
            issued: 0,
            durable: 0,
            stripes: Some(stripes),
            failed: None,
            syncs: 0,
        };
        GroupCommit {
            state: Mutex::new(state),
            synced: Condvar::new(),
        }
    }

    /// Returns once `payload` is on disk.
    pub fn commit(&self, payload: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        state
            .pending
            .extend_from_slice(&(payload.len() as u64).to_le_bytes());
        state.pending.extend_from_slice(payload);
        state.issued += 1;
        let ticket = state.issued;
        loop {
            if state.durable >= ticket {
                return Ok(());
            }
            if let Some(message) = &state.failed {
                return Err(io::Error::other(message.clone()));
            }
            state = match state.stripes.take() {
                Some(stripes) => self.lead(state, stripes),
                None => self
                    .synced
                    .wait(state)
                    .unwrap_or_else(|poison| poison.into_inner()),
            };
        }
    }

    /// Writes and syncs everything pending, outside the lock.
    fn lead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        mut stripes: Stripes,
    ) -> MutexGuard<'a, State> {
        let spare = std::mem::take(&mut state.spare);
        let mut frames = std::mem::replace(&mut state.pending, spare);
        let upto = state.issued;
        drop(state);
        let result = stripes.append(&frames);
        frames.clear();
        let mut state = self.lock();
        match result {
            Ok(()) => state.durable = upto,
            Err(error) => state.failed = Some(error.to_string()),
        }
        state.syncs += 1;
        state.spare = frames;
        state.stripes = Some(stripes);
        self.synced.notify_all();
        state
    }

    /// How many times the file was synced.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }
}
