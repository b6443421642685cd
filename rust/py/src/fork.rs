//! A fork is refused: the child has none of the parent's threads, and may have its locks locked for ever.
//!
//! A counter tells the processes apart: `pthread_atfork` raises it in every child, so a check is one load and no
//! system call. What a child inherits it must not even drop, as dropping joins threads and takes locks:
//! [`ForkSafe`] leaks it there instead.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many forks lie between this process and the one that loaded the module.
static FORKS: AtomicU32 = AtomicU32::new(0);
static REGISTERED: Once = Once::new();

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> std::ffi::c_int;
}

extern "C" fn count_fork() {
    // Atomics and close(2): little else is safe in the child of a process with threads.
    FORKS.fetch_add(1, Ordering::Relaxed);
    aurora_runtime::release_in_fork();
}

/// A number that differs between a process and its forks.
pub fn generation() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Starts counting forks; called when the module is loaded.
pub fn watch() {
    // SAFETY: the handler lives as long as the module, which Python never unloads, and is async-signal-safe.
    REGISTERED.call_once(|| unsafe {
        pthread_atfork(None, None, Some(count_fork));
    });
}

/// Something of the engine's that is dropped only in the process that made it.
pub struct ForkSafe<T> {
    inner: ManuallyDrop<T>,
    generation: u32,
}

impl<T> ForkSafe<T> {
    /// Belongs to this process from now on.
    pub fn new(inner: T) -> ForkSafe<T> {
        ForkSafe {
            inner: ManuallyDrop::new(inner),
            generation: generation(),
        }
    }

    /// Whether this is a fork of the process that made it.
    #[inline]
    pub fn is_foreign(&self) -> bool {
        self.generation != generation()
    }

    /// What is inside, to be changed.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Deref for ForkSafe<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> Drop for ForkSafe<T> {
    fn drop(&mut self) {
        if !self.is_foreign() {
            // SAFETY: dropped once, here, and never used again.
            unsafe { ManuallyDrop::drop(&mut self.inner) }
        }
    }
}
