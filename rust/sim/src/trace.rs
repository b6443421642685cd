//! Everything that happens in a world, in order: hashed, so that two runs of one seed can be compared, and the last
//! lines kept, so that a failure can be understood.

use std::collections::VecDeque;
use std::fmt;

const KEPT_LINES: usize = 4000;

/// The trace of one run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    events: u64,
}

impl Trace {
    /// Notes an event at a time.
    pub fn note(&mut self, now_us: u64, event: fmt::Arguments<'_>) {
        let line = format!("{now_us:>10} {event}");
        // FNV-1a: the order of events is part of what is compared.
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.events += 1;
        self.lines.push_back(line);
        if self.lines.len() > KEPT_LINES {
            self.lines.pop_front();
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
            let mut trace = Trace::default();
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
