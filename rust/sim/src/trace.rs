//! Everything that happens in a world, in order: hashed, so that two runs of one seed can be compared, and on request kept as
//! lines, so that a failure can be understood. A run that fails is run again with the lines.

use std::collections::VecDeque;
use std::fmt::{self, Write};

const KEPT_LINES: usize = 200_000;

/// The trace of one run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    line: String,
    events: u64,
    keep: bool,
}

impl Trace {
    /// A trace that keeps its lines.
    pub fn kept() -> Trace {
        Trace {
            keep: true,
            ..Trace::default()
        }
    }

    /// Notes an event at a time.
    pub fn note(&mut self, now_us: u64, event: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a `String` does not fail.
        let _ = self.line.write_fmt(event);
        let mut hash = self.hash ^ now_us;
        // The order of events is part of what is compared.
        for chunk in self.line.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        self.hash = hash;
        self.events += 1;
        if self.keep {
            self.lines.push_back(format!("{now_us:>10} {}", self.line));
            if self.lines.len() > KEPT_LINES {
                self.lines.pop_front();
            }
        }
    }

    /// The hash of all events so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last lines.
    pub fn tail(&self, lines: usize) -> String {
        let skip = self.lines.len().saturating_sub(lines);
        self.lines
            .iter()
            .skip(skip)
            .fold(String::new(), |out, line| out + line + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_matters_and_the_tail_is_kept() {
        let run = |events: &[&str]| {
            let mut trace = Trace::kept();
            events
                .iter()
                .for_each(|e| trace.note(1, format_args!("{e}")));
            trace
        };
        assert_eq!(run(&["a", "b"]).hash(), run(&["a", "b"]).hash());
        assert_ne!(run(&["a", "b"]).hash(), run(&["b", "a"]).hash());
        assert_eq!(run(&["a", "b"]).tail(1), format!("{:>10} b\n", 1));
    }
}
