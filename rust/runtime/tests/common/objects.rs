//! An object store in memory that refuses, loses, tears and lies when it is told to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use aurora_runtime::{ObjectPlace, Pieces, PlaceError, PlaceFault};

/// What is wrong with the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Well,
    /// Nothing is answered.
    Refuses(Fault),
    /// What is written arrives, and the answer is that it did not.
    LosesAnswers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Full,
    Denied,
    Unreachable,
}

#[derive(Debug, Default)]
pub struct Objects {
    pub objects: Mutex<BTreeMap<String, Vec<u8>>>,
    mood: Mutex<Mood>,
    /// Writes until the store refuses everything.
    left: Mutex<Option<u32>>,
}

impl Objects {
    pub fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        *self.left.lock().unwrap() = None;
    }

    /// Takes this many writes more, and then refuses.
    pub fn refuse_after(&self, writes: u32) {
        *self.left.lock().unwrap() = Some(writes);
    }

    pub fn names(&self, prefix: &str) -> Vec<String> {
        let objects = self.objects.lock().unwrap();
        objects
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect()
    }

    fn check(&self) -> Result<(), PlaceError> {
        let refused = |what| Err(PlaceError::new(what, "as it was told"));
        match *self.mood.lock().unwrap() {
            Mood::Refuses(Fault::Full) => refused(PlaceFault::Full),
            Mood::Refuses(Fault::Denied) => refused(PlaceFault::Denied),
            Mood::Refuses(Fault::Unreachable) => refused(PlaceFault::Unreachable),
            Mood::Well | Mood::LosesAnswers => Ok(()),
        }
    }

    fn count(&self) -> Result<(), PlaceError> {
        self.check()?;
        let mut left = self.left.lock().unwrap();
        match &mut *left {
            Some(0) => Err(PlaceError::new(PlaceFault::Unreachable, "as it was told")),
            Some(writes) => {
                *writes -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn answer(&self) -> Result<(), PlaceError> {
        match *self.mood.lock().unwrap() {
            Mood::LosesAnswers => Err(PlaceError::new(
                PlaceFault::Unreachable,
                "the answer is lost",
            )),
            _ => Ok(()),
        }
    }
}

impl ObjectPlace for Objects {
    fn put(&self, name: &str, bytes: Vec<u8>, create_only: bool) -> Result<(), PlaceError> {
        self.count()?;
        let mut objects = self.objects.lock().unwrap();
        if create_only && objects.contains_key(name) {
            return Err(PlaceError::new(PlaceFault::Exists, name));
        }
        objects.insert(name.into(), bytes);
        self.answer()
    }

    fn put_pieces(&self, name: &str, pieces: &mut Pieces<'_>) -> Result<(), PlaceError> {
        let mut bytes = Vec::new();
        while let Some(piece) = pieces()? {
            bytes.extend_from_slice(&piece);
        }
        self.put(name, bytes, false)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, PlaceError> {
        self.check()?;
        let objects = self.objects.lock().unwrap();
        objects
            .get(name)
            .cloned()
            .ok_or_else(|| PlaceError::new(PlaceFault::NotFound, name))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, PlaceError> {
        let bytes = self.get(name)?;
        let part = bytes.get(range.start as usize..range.end as usize);
        part.map(<[u8]>::to_vec)
            .ok_or_else(|| PlaceError::new(PlaceFault::Unreachable, "a range beyond the end"))
    }

    fn size(&self, name: &str) -> Result<Option<u64>, PlaceError> {
        self.check()?;
        let objects = self.objects.lock().unwrap();
        Ok(objects.get(name).map(|bytes| bytes.len() as u64))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, PlaceError> {
        self.check()?;
        Ok(self.names(&format!("{prefix}/")))
    }

    fn delete(&self, name: &str) -> Result<(), PlaceError> {
        self.check()?;
        self.objects.lock().unwrap().remove(name);
        Ok(())
    }
}
