//! The system's allocator, which counts what each thread has.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static HAS: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// While a thread ends its counters are gone, and nobody asks for them.
fn count(bytes: isize) {
    let _ = HAS.try_with(|has| {
        has.set(has.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(has.get())));
    });
}

// SAFETY: every call is the system allocator's own; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes as isize - layout.size() as isize);
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(place, layout, bytes) }
    }
}

/// The most memory that this thread had at once while it did something, beyond what it had before.
pub fn peak_of(work: impl FnOnce()) -> usize {
    let before = HAS.get();
    PEAK.set(before);
    work();
    (PEAK.get() - before).max(0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_what_was_held_at_once() {
        let one_after_the_other = peak_of(|| {
            drop(std::hint::black_box(vec![1u8; 1 << 20]));
            drop(std::hint::black_box(vec![1u8; 1 << 20]));
        });
        assert!((1 << 20..3 << 19).contains(&one_after_the_other));
        let zeroed_and_grown = peak_of(|| {
            let mut all = std::hint::black_box(vec![0u8; 1 << 20]);
            all.resize(3 << 20, 1);
            std::hint::black_box(all);
        });
        assert!(zeroed_and_grown >= 3 << 20);
    }
}
