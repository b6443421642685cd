//! Waiting for a lock without holding the interpreter.

use parking_lot::{Mutex, MutexGuard};
use pyo3::prelude::*;

/// Takes a lock whose holder may be waiting for the interpreter: it is never waited for while holding that.
pub fn lock<'a, T: Send>(py: Python<'_>, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
    loop {
        if let Some(guard) = mutex.try_lock() {
            return guard;
        }
        py.detach(|| drop(mutex.lock()));
    }
}
