//! Decoded blocks of layers, within a byte budget: first in, first out, with a second chance for what was used.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// A layer and an offset in it.
type Key = (u64, u64);

#[derive(Debug)]
struct Slot {
    block: Bytes,
    used: bool,
}

#[derive(Debug, Default)]
struct Slots {
    by_key: FxHashMap<Key, Slot>,
    queue: VecDeque<Key>,
    bytes: usize,
}

/// Shared by the layers of a node.
#[derive(Debug)]
pub(crate) struct BlockCache {
    bytes_max: usize,
    slots: Mutex<Slots>,
}

impl BlockCache {
    pub(crate) fn new(bytes_max: usize) -> BlockCache {
        BlockCache {
            bytes_max,
            slots: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<Bytes> {
        let mut slots = self.slots.lock();
        let slot = slots.by_key.get_mut(&key)?;
        slot.used = true;
        Some(slot.block.clone())
    }

    pub(crate) fn put(&self, key: Key, block: Bytes) {
        if block.len() > self.bytes_max / 4 {
            return;
        }
        let mut guard = self.slots.lock();
        let slots = &mut *guard;
        slots.bytes += block.len();
        if let Some(old) = slots.by_key.insert(key, Slot { block, used: false }) {
            slots.bytes -= old.block.len();
        } else {
            slots.queue.push_back(key);
        }
        while slots.bytes > self.bytes_max {
            let Some(oldest) = slots.queue.pop_front() else {
                break;
            };
            match slots.by_key.get_mut(&oldest) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    slots.queue.push_back(oldest);
                }
                Some(_) => {
                    if let Some(gone) = slots.by_key.remove(&oldest) {
                        slots.bytes -= gone.block.len();
                    }
                }
                None => {}
            }
        }
    }

    /// Forgets the blocks of a layer that is gone.
    pub(crate) fn forget(&self, layer: u64) {
        let mut guard = self.slots.lock();
        let slots = &mut *guard;
        let bytes = &mut slots.bytes;
        slots.by_key.retain(|key, slot| {
            if key.0 == layer {
                *bytes -= slot.block.len();
            }
            key.0 != layer
        });
        slots.queue.retain(|key| key.0 != layer);
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.slots.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_budget_and_what_is_used() {
        let cache = BlockCache::new(1000);
        for i in 0..100 {
            cache.put((1, i), Bytes::from(vec![0; 100]));
            assert!(cache.bytes() <= 1000);
            assert!(
                i == 0 || cache.get((1, 0)).is_some(),
                "used at every step, {i}"
            );
        }
        cache.forget(1);
        assert_eq!(cache.bytes(), 0);
        assert!(cache.get((1, 99)).is_none());
    }
}
