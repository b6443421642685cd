//! Opening a log: find its end, heal its blocks, give back its entries.

use std::collections::BTreeMap;

use aurora_proto::{NodeId, NodeSet};
use bytes::Bytes;

use super::block::{
    self, BLOCK_BYTES, FRAGMENT_HEADER_BYTES, Fragment, HEADER_BYTES, Header, Place,
};
use super::device::{Shape, Tail};
use super::files::{LogFile, LogFiles};
use super::{LogEntry, Position, frame};
use crate::error::LogError;

/// What opening a log found.
#[derive(Debug, Default)]
pub struct Replay {
    /// Everything appended since the last trim, in order.
    pub entries: Vec<LogEntry>,
    /// Blocks that differed from those of other nodes and were written anew, by node.
    pub healed: BTreeMap<NodeId, u64>,
    /// Whether the remains of an append that never finished were cut off.
    pub cut: bool,
}

/// A file as the first look finds it.
struct Seen {
    file: LogFile,
    /// Highest generation that any of its stripes names; none in a file that was never used.
    generation: Option<u64>,
}

pub(super) fn replay(
    files: &LogFiles,
    shape: &Shape,
) -> Result<(Tail, Position, Replay), LogError> {
    let mut trimmed = Position::START;
    let mut live = BTreeMap::new();
    let mut free = Vec::new();
    for file in files.open_all()? {
        let seen = look(file, shape, &mut trimmed)?;
        match seen.generation {
            Some(generation) => drop(live.insert(generation, seen.file)),
            None => free.push(seen.file),
        }
    }
    let start = shape.generation(trimmed.stripe);
    let kept = live.split_off(&start);
    free.splice(0..0, live.into_values());
    let mut scan = Scan::new(shape, trimmed);
    let newest = kept.keys().next_back().copied();
    for generation in start..=newest.unwrap_or(start) {
        match kept.get(&generation) {
            Some(file) => scan.file(generation, file)?,
            None if newest.is_none() => {}
            None => {
                let path = kept
                    .values()
                    .next()
                    .map_or_else(Default::default, |f| f.path.clone());
                let expected = format!("a file of generation {generation} beside it");
                return Err(LogError::Damaged {
                    path,
                    offset: 0,
                    expected,
                    got: "none".into(),
                });
            }
        }
    }
    let (tail, replay) = scan.finish(&kept)?;
    // Files behind the end hold nothing any more.
    let end = shape.generation(tail.stripe);
    let (used, behind): (Vec<_>, Vec<_>) = kept.into_iter().partition(|(g, _)| *g <= end);
    free.extend(behind.into_iter().map(|(_, file)| file));
    files.set(used, free);
    Ok((tail, trimmed, replay))
}

/// Finds a file's generation and the newest trim mark, and checks that the log is ours to read.
fn look(file: LogFile, shape: &Shape, trimmed: &mut Position) -> Result<Seen, LogError> {
    let mut generation = None;
    for_each_stripe(&file, shape, 0, |index, stripe| {
        for (slot, bytes) in stripe.chunks_exact(BLOCK_BYTES).enumerate() {
            let Some(header) = block::read_header(bytes, shape.salt) else {
                continue;
            };
            check(&header, slot, stripe, &file, shape)?;
            if header.stripe % shape.stripes_per_file == index {
                generation = generation.max(Some(shape.generation(header.stripe)));
                *trimmed = (*trimmed).max(header.trimmed);
            }
        }
        Ok(())
    })?;
    Ok(Seen { file, generation })
}

fn check(
    header: &Header,
    slot: usize,
    stripe: &[u8],
    file: &LogFile,
    shape: &Shape,
) -> Result<(), LogError> {
    if header.format > block::FORMAT {
        let (expected, got) = (block::FORMAT, header.format);
        return Err(LogError::NewerFormat {
            path: file.path.clone(),
            expected,
            got,
        });
    }
    let ours = shape.nodes.iter().nth(slot).map(|n| n.0);
    if usize::from(header.slots) != shape.nodes.len()
        || usize::from(header.slot) != slot
        || Some(header.node) != ours
    {
        let blocks = stripe.chunks_exact(BLOCK_BYTES);
        let headers = blocks.filter_map(|b| block::read_header(b, shape.salt));
        let got = headers.fold(NodeSet::EMPTY, |set, h| {
            set.with(NodeId(h.node % NodeId::LIMIT))
        });
        return Err(LogError::Slots {
            path: file.path.clone(),
            expected: shape.nodes,
            got,
        });
    }
    Ok(())
}

/// Reads the stripes of a file from index `from`, a few at a time. A file that is too short is read as far as it goes.
fn for_each_stripe(
    file: &LogFile,
    shape: &Shape,
    from: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let stripe_bytes = shape.stripe_bytes() as u64;
    let len = file.file.len().map_err(LogError::io(&file.path))?;
    let stripes = shape.stripes_per_file.min(len / stripe_bytes);
    let at_once = ((1 << 20) / stripe_bytes).max(1);
    let mut buf = Vec::new();
    let mut index = from;
    while index < stripes {
        let n = at_once.min(stripes - index);
        buf.resize((n * stripe_bytes) as usize, 0);
        file.file
            .read_exact_at(&mut buf, index * stripe_bytes)
            .map_err(LogError::io(&file.path))?;
        for stripe in buf.chunks_exact(stripe_bytes as usize) {
            each(index, stripe)?;
            index += 1;
        }
    }
    Ok(())
}

/// A pass over the stripes in order.
struct Scan<'a> {
    shape: &'a Shape,
    trimmed: Position,
    replay: Replay,
    /// The group that must come next, its next fragment, and what of it is there.
    group: u64,
    index: u32,
    body: Vec<u8>,
    /// End of the last complete group: stripe and offset in its blocks.
    end: (u64, usize),
    tail: Option<Vec<u8>>,
    /// Where the last complete group begins.
    last_group_stripe: u64,
    group_stripe: u64,
    broken: Option<(LogFile, u64)>,
    highest: u64,
    rewrite: BTreeMap<u64, Vec<u8>>,
    /// Clean forms of the stripes of the newest group: written anew at every open, because a sync that failed may have
    /// left them readable but not durable.
    recent: BTreeMap<u64, Vec<u8>>,
}

impl<'a> Scan<'a> {
    fn new(shape: &'a Shape, trimmed: Position) -> Scan<'a> {
        Scan {
            shape,
            trimmed,
            replay: Replay::default(),
            group: trimmed.group,
            index: 0,
            body: Vec::new(),
            end: (trimmed.stripe, HEADER_BYTES),
            tail: None,
            last_group_stripe: trimmed.stripe,
            group_stripe: trimmed.stripe,
            broken: None,
            highest: 0,
            rewrite: BTreeMap::new(),
            recent: BTreeMap::new(),
        }
    }

    fn file(&mut self, generation: u64, file: &LogFile) -> Result<(), LogError> {
        let first = generation * self.shape.stripes_per_file;
        let from = self.trimmed.stripe.saturating_sub(first);
        let shape = self.shape;
        for_each_stripe(file, shape, from, |index, bytes| {
            self.stripe(first + index, bytes, file)
        })
    }

    fn stripe(&mut self, stripe: u64, bytes: &[u8], file: &LogFile) -> Result<(), LogError> {
        let header = bytes
            .chunks_exact(BLOCK_BYTES)
            .filter_map(|b| block::read_header(b, self.shape.salt))
            .find(|h| h.stripe == stripe);
        let trimmed = header.map_or(self.trimmed, |h| h.trimmed);
        let mut clean = Vec::with_capacity(bytes.len());
        block::push_stripe(
            &mut clean,
            self.shape.nodes,
            self.shape.salt,
            stripe,
            trimmed,
        );
        let mut place = Place {
            salt: self.shape.salt,
            stripe,
            at: HEADER_BYTES,
        };
        let mut remains = header.is_some();
        let mut ours = false;
        while let Some((fragment, body)) = any_copy(bytes, place) {
            remains = true;
            let at = place.at;
            let behind = at + FRAGMENT_HEADER_BYTES + fragment.len;
            if self.take(fragment, body, stripe, behind, file, at)? {
                block::put_fragment(&mut clean, place, fragment, body);
                ours = true;
            }
            place.at = behind;
        }
        self.keep(stripe, bytes, clean, remains, ours);
        Ok(())
    }

    /// Follows the chain of fragments; true while it is unbroken.
    fn take(
        &mut self,
        fragment: Fragment,
        body: &[u8],
        stripe: u64,
        behind: usize,
        file: &LogFile,
        at: usize,
    ) -> Result<bool, LogError> {
        if fragment.group < self.group {
            // The end of a group that was trimmed; a stale one cannot be: the end was cleaned when the log was opened.
            if self.broken.is_none() && self.index == 0 {
                self.end = (stripe, behind);
            }
            return Ok(self.broken.is_none());
        }
        if self.broken.is_some() || fragment.group != self.group || fragment.index != self.index {
            self.highest = self.highest.max(fragment.group);
            self.broken
                .get_or_insert_with(|| (file.clone(), self.shape.offset(stripe) + at as u64));
            return Ok(false);
        }
        if self.index == 0 {
            self.group_stripe = stripe;
        }
        self.body.extend_from_slice(body);
        self.index += 1;
        if fragment.last {
            let body = Bytes::from(std::mem::take(&mut self.body));
            frame::decode_group(&body, &mut self.replay.entries).map_err(|error| {
                LogError::Damaged {
                    path: file.path.clone(),
                    offset: self.shape.offset(stripe),
                    expected: format!("the entries of group {}", self.group),
                    got: error.to_string(),
                }
            })?;
            self.group += 1;
            self.index = 0;
            self.end = (stripe, behind);
            self.last_group_stripe = self.group_stripe;
            self.recent = self.recent.split_off(&self.group_stripe);
        }
        Ok(true)
    }

    /// Remembers the stripe's clean form where it differs from what is on disk, or may yet have to be written.
    fn keep(&mut self, stripe: u64, bytes: &[u8], clean: Vec<u8>, remains: bool, ours: bool) {
        if !ours {
            if remains {
                self.rewrite.insert(stripe, vec![0; bytes.len()]);
            }
            return;
        }
        if bytes != clean {
            let blocks = bytes
                .chunks_exact(BLOCK_BYTES)
                .zip(clean.chunks_exact(BLOCK_BYTES));
            for (node, (was, is)) in self.shape.nodes.iter().zip(blocks) {
                if was != is {
                    *self.replay.healed.entry(node).or_default() += 1;
                }
            }
            self.rewrite.insert(stripe, clean.clone());
        }
        self.recent.insert(stripe, clean);
    }

    fn finish(mut self, files: &BTreeMap<u64, LogFile>) -> Result<(Tail, Replay), LogError> {
        if let Some((file, offset)) = self.broken.clone().filter(|_| self.highest > self.group) {
            return Err(LogError::Damaged {
                path: file.path,
                offset,
                expected: format!("group {} fragment {} before it", self.group, self.index),
                got: format!("group {}", self.highest),
            });
        }
        self.cut_unfinished();
        let recent = self.recent.range(self.last_group_stripe..=self.end.0);
        let mut writes: BTreeMap<u64, Vec<u8>> = recent.map(|(s, b)| (*s, b.clone())).collect();
        for (stripe, bytes) in std::mem::take(&mut self.rewrite) {
            writes.entry(stripe).or_insert(bytes);
        }
        self.write(&writes, files)?;
        let buf = self.tail.take().unwrap_or_else(|| {
            let mut empty = Vec::new();
            block::push_stripe(
                &mut empty,
                self.shape.nodes,
                self.shape.salt,
                self.end.0,
                self.trimmed,
            );
            empty
        });
        Ok((
            Tail::new(buf, self.end.0, self.end.1, self.group),
            self.replay,
        ))
    }

    /// Takes the fragments of an unfinished group out of the clean forms.
    fn cut_unfinished(&mut self) {
        self.replay.cut = self.index > 0 || self.broken.is_some();
        let (stripe, at) = self.end;
        let torn = self.recent.split_off(&(stripe + 1));
        let behind: Vec<u64> = self
            .rewrite
            .range(stripe + 1..)
            .map(|(s, _)| *s)
            .chain(torn.into_keys())
            .collect();
        let zeros = vec![0; self.shape.stripe_bytes()];
        for stripe in behind {
            self.rewrite.insert(stripe, zeros.clone());
        }
        for forms in [&mut self.recent, &mut self.rewrite] {
            if let Some(clean) = forms.get_mut(&stripe) {
                clean
                    .chunks_exact_mut(BLOCK_BYTES)
                    .for_each(|block| block[at..].fill(0));
            }
        }
        self.mark_tail(stripe);
        self.tail = self.recent.get(&stripe).cloned();
    }

    /// The newest trim mark may have stood in a stripe that was just cut. Files before it are given up soon, so it is
    /// written again, into the header of the stripe that is the tail now.
    fn mark_tail(&mut self, stripe: u64) {
        let Some(tail) = self.recent.get_mut(&stripe) else {
            return;
        };
        let (nodes, salt) = (self.shape.nodes, self.shape.salt);
        let mut marked = Vec::with_capacity(tail.len());
        block::push_stripe(&mut marked, nodes, salt, stripe, self.trimmed);
        let blocks = marked.chunks_exact(BLOCK_BYTES);
        for (block, header) in tail.chunks_exact_mut(BLOCK_BYTES).zip(blocks) {
            block[..HEADER_BYTES].copy_from_slice(&header[..HEADER_BYTES]);
        }
    }

    fn write(
        &self,
        writes: &BTreeMap<u64, Vec<u8>>,
        files: &BTreeMap<u64, LogFile>,
    ) -> Result<(), LogError> {
        let mut touched = BTreeMap::new();
        for (stripe, bytes) in writes {
            let generation = self.shape.generation(*stripe);
            let Some(target) = files.get(&generation) else {
                continue;
            };
            target
                .file
                .write_all_at(bytes, self.shape.offset(*stripe))
                .map_err(LogError::io(&target.path))?;
            touched.insert(generation, target);
        }
        for target in touched.values() {
            target
                .file
                .sync_data()
                .map_err(LogError::io(&target.path))?;
        }
        Ok(())
    }
}

/// A fragment is good if any block of the stripe has it.
fn any_copy(stripe: &[u8], place: Place) -> Option<(Fragment, &[u8])> {
    stripe
        .chunks_exact(BLOCK_BYTES)
        .find_map(|b| block::read_fragment(b, place))
}
