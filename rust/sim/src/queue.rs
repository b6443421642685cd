//! Virtual time: what is to happen, by time and then by the order in which it was asked for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events that are still to come.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    asked: u64,
    now_us: u64,
}

#[derive(Debug)]
struct Entry<E> {
    key: (u64, u64),
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl<E> Eq for Entry<E> {}
impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Queue {
            heap: BinaryHeap::new(),
            asked: 0,
            now_us: 0,
        }
    }
}

impl<E> Queue<E> {
    /// The present.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// `event` is to happen `delay_us` from now.
    pub fn after(&mut self, delay_us: u64, event: E) {
        self.asked += 1;
        self.heap.push(Reverse(Entry {
            key: (self.now_us + delay_us, self.asked),
            event,
        }));
    }

    /// The next event; time moves to it.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse(entry) = self.heap.pop()?;
        self.now_us = entry.key.0;
        Some(entry.event)
    }

    /// Events that are still to come.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Nothing is to come any more.
    pub fn clear(&mut self) {
        self.heap.clear();
    }

    /// Is nothing to come?
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_first_then_the_order_of_asking() {
        let mut queue = Queue::default();
        queue.after(20, 'c');
        queue.after(10, 'a');
        queue.after(10, 'b');
        assert_eq!([queue.pop(), queue.pop()], [Some('a'), Some('b')]);
        queue.after(5, 'd');
        assert_eq!((queue.pop(), queue.now_us()), (Some('d'), 15));
        assert_eq!(
            (queue.pop(), queue.pop(), queue.is_empty()),
            (Some('c'), None, true)
        );
    }
}
