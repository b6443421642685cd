//! The metadata store of a world: one cell with compare-and-swap, and every version that it ever held.

use std::cell::RefCell;

use aurora_proto::{Manifest, MetaError, MetaStore};

/// All manifests that were ever written, in order.
#[derive(Debug, Default)]
pub struct SimMeta {
    versions: RefCell<Vec<Manifest>>,
}

impl SimMeta {
    /// The manifest as it is. A world begins by writing one.
    pub fn latest(&self) -> Manifest {
        self.versions
            .borrow()
            .last()
            .cloned()
            .expect("a world begins with a manifest")
    }

    /// The epoch of the manifest as it is.
    pub fn epoch(&self) -> u64 {
        self.versions
            .borrow()
            .last()
            .map_or(0, |manifest| manifest.epoch)
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.versions.borrow().len()
    }
}

impl MetaStore for SimMeta {
    fn read_latest(&self) -> Result<Option<Manifest>, MetaError> {
        Ok(self.versions.borrow().last().cloned())
    }

    fn cas(&self, expected: u64, next: &Manifest) -> Result<(), MetaError> {
        let mut versions = self.versions.borrow_mut();
        let found = versions.last().map_or(0, |manifest| manifest.version);
        if found != expected {
            return Err(MetaError::Conflict { expected, found });
        }
        // The bytes are what a real store keeps, so they must come back as they were.
        versions.push(Manifest::decode(&next.encode())?);
        Ok(())
    }
}
