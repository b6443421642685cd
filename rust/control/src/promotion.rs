//! Who is alive, and who becomes the writer when it is not.
//!
//! A failure is silence: an instance that was not heard of for the detection time is taken for dead. The built-in rule for its
//! place is Aurora's: the lowest promotion tier, then the larger class; then whoever has applied most.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use aurora_page::Lsn;

/// The last promotion tier; the first is 0.
pub const TIER_MAX: u8 = 15;

/// The classes of instances, smallest first.
pub const CLASSES: [&str; 8] = [
    "small", "medium", "large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "16xlarge",
];

/// The rank of a class, by which ties between equal tiers are broken.
pub fn class_rank(class: &str) -> Option<u8> {
    let rank = CLASSES.iter().position(|name| *name == class)?;
    u8::try_from(rank).ok()
}

/// An instance that could become the writer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its promotion tier: 0 is first.
    pub tier: u8,
    /// The rank of its class.
    pub class: u8,
    /// What it has applied.
    pub applied: Lsn,
}

/// The candidate that the built-in rule takes.
pub fn choose(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().min_by_key(|c| {
        (
            c.tier,
            Reverse(c.class),
            Reverse(c.applied),
            c.name.as_str(),
        )
    })
}

/// Hears instances, and says who was silent for too long. Time is an argument.
#[derive(Clone, Debug)]
pub struct Detector {
    silence_us_max: i64,
    heard: BTreeMap<String, i64>,
}

impl Detector {
    /// A detector that calls an instance dead after so much silence.
    pub fn new(silence_us_max: i64) -> Detector {
        Detector {
            silence_us_max,
            heard: BTreeMap::new(),
        }
    }

    /// An instance was heard. Who is heard for the first time is watched from now on.
    pub fn heard(&mut self, name: &str, now_us: i64) {
        match self.heard.get_mut(name) {
            Some(last) => *last = now_us.max(*last),
            None => {
                self.heard.insert(name.to_owned(), now_us);
            }
        }
    }

    /// An instance is watched from now on, heard or not.
    pub fn watch(&mut self, name: &str, now_us: i64) {
        self.heard.entry(name.to_owned()).or_insert(now_us);
    }

    /// An instance is not watched any more.
    pub fn forget(&mut self, name: &str) {
        self.heard.remove(name);
    }

    /// For how long an instance was silent, once that is too long.
    pub fn silent(&self, name: &str, now_us: i64) -> Option<i64> {
        let silence = now_us - self.heard.get(name)?;
        (silence >= self.silence_us_max).then_some(silence)
    }

    /// Nobody looked for a while - the process was stopped, the machine slept: nobody is blamed for it.
    pub fn excuse(&mut self, pause_us: i64) {
        self.heard.values_mut().for_each(|last| *last += pause_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, tier: u8, class: &str, applied: u64) -> Candidate {
        Candidate {
            name: name.into(),
            tier,
            class: class_rank(class).unwrap(),
            applied: Lsn(applied),
        }
    }

    #[test]
    fn tier_then_class_then_progress_then_name() {
        let chosen = |list: &[Candidate]| choose(list).map(|c| c.name.clone());
        let mut list = vec![
            candidate("d", 1, "16xlarge", 99),
            candidate("c", 0, "large", 9),
            candidate("b", 0, "large", 9),
        ];
        assert_eq!(chosen(&list), Some("b".into()));
        list.push(candidate("e", 0, "large", 10));
        assert_eq!(chosen(&list), Some("e".into()));
        list.push(candidate("f", 0, "xlarge", 1));
        assert_eq!(chosen(&list), Some("f".into()));
        assert_eq!(chosen(&[]), None);
        assert_eq!(class_rank("huge"), None);
    }

    #[test]
    fn silence_counts_from_the_last_sign() {
        let mut detector = Detector::new(1000);
        detector.watch("w", 0);
        assert_eq!(detector.silent("w", 999), None);
        detector.heard("w", 500);
        detector.heard("w", 400);
        assert_eq!(detector.silent("w", 1499), None);
        assert_eq!(detector.silent("w", 1500), Some(1000));
        detector.excuse(2000);
        assert_eq!(detector.silent("w", 3000), None);
        assert_eq!(detector.silent("unknown", 9999), None);
        detector.forget("w");
        assert_eq!(detector.silent("w", 99_999), None);
    }
}
