//! Blocks and fragments: bytes of a stripe.
//!
//! ```text
//!   block header, 40 bytes                          fragment header, 24 bytes
//!    0  magic       u32                              0  header crc  u32   of bytes 4..24
//!    4  crc         u32   of bytes 8..40             4  body crc    u32
//!    8  format      u16                              8  length      u16   of the body
//!   10  slot        u8    which block of the stripe 10  flags       u16   1 = last of its group
//!   11  slots       u8    blocks in the stripe      12  index       u32   in its group, from 0
//!   12  node        u16   whose block               16  group       u64
//!   14  zero        u16                             24  body
//!   16  stripe      u64
//!   24  trim group  u64   everything before it is in layers
//!   32  trim stripe u64
//! ```

use aurora_page::planted::{self, Fault};
use aurora_page::{crc32c, crc32c_append};
use aurora_proto::NodeSet;

use super::Position;

pub(super) const BLOCK_BYTES: usize = 4096;
pub(super) const HEADER_BYTES: usize = 40;
pub(super) const FRAGMENT_HEADER_BYTES: usize = 24;
pub(super) const FORMAT: u16 = 1;
const MAGIC: u32 = u32::from_le_bytes(*b"AUlb");
const LAST: u16 = 1;
/// A fragment shorter than this is not begun at the end of a block unless it completes its group.
const FRAGMENT_BODY_MIN: usize = 32;

const _: () = assert!(HEADER_BYTES + FRAGMENT_HEADER_BYTES + FRAGMENT_BODY_MIN < BLOCK_BYTES);
const _: () = assert!(BLOCK_BYTES <= u16::MAX as usize);

/// What seeds the checksums of one stripe.
fn seed(salt: u64, stripe: u64) -> u32 {
    crc32c_append(crc32c(&salt.to_le_bytes()), &stripe.to_le_bytes())
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

/// A block header that passed its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) format: u16,
    pub(super) slot: u8,
    pub(super) slots: u8,
    pub(super) node: u16,
    pub(super) stripe: u64,
    pub(super) trimmed: Position,
}

/// The header's checksum knows the salt and not the stripe, so that a block tells which stripe it is.
pub(super) fn read_header(block: &[u8], salt: u64) -> Option<Header> {
    if u32_at(block, 0) != MAGIC {
        return None;
    }
    let crc = crc32c_append(crc32c(&salt.to_le_bytes()), &block[8..HEADER_BYTES]);
    (crc == u32_at(block, 4)).then(|| Header {
        format: u16_at(block, 8),
        slot: block[10],
        slots: block[11],
        node: u16_at(block, 12),
        stripe: u64_at(block, 16),
        trimmed: Position {
            group: u64_at(block, 24),
            stripe: u64_at(block, 32),
        },
    })
}

/// Appends an empty stripe: a header per node, zeros behind.
pub(super) fn push_stripe(
    out: &mut Vec<u8>,
    nodes: NodeSet,
    salt: u64,
    stripe: u64,
    trimmed: Position,
) {
    for (slot, node) in nodes.iter().enumerate() {
        let at = out.len();
        out.resize(at + BLOCK_BYTES, 0);
        let block = &mut out[at..];
        block[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        block[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        block[10] = slot as u8;
        block[11] = nodes.len() as u8;
        block[12..14].copy_from_slice(&node.0.to_le_bytes());
        block[16..24].copy_from_slice(&stripe.to_le_bytes());
        block[24..32].copy_from_slice(&trimmed.group.to_le_bytes());
        block[32..40].copy_from_slice(&trimmed.stripe.to_le_bytes());
        let crc = crc32c_append(crc32c(&salt.to_le_bytes()), &block[8..HEADER_BYTES]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

/// How many bytes of a group's remaining `body` go into a block filled up to `at`; none when a new block is better.
pub(super) fn room(at: usize, body: usize) -> usize {
    let room = BLOCK_BYTES.saturating_sub(at + FRAGMENT_HEADER_BYTES);
    if room >= body.min(FRAGMENT_BODY_MIN) {
        room.min(body)
    } else {
        0
    }
}

/// Where a fragment stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) salt: u64,
    pub(super) stripe: u64,
    /// Offset in the block.
    pub(super) at: usize,
}

impl Place {
    fn seed(&self) -> u32 {
        crc32c_append(
            seed(self.salt, self.stripe),
            &(self.at as u16).to_le_bytes(),
        )
    }
}

/// What a fragment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) group: u64,
    pub(super) index: u32,
    pub(super) last: bool,
    pub(super) len: usize,
}

/// Writes a fragment at its place into every block of a stripe: checksummed once, copied k times.
pub(super) fn put_fragment(stripe: &mut [u8], place: Place, fragment: Fragment, body: &[u8]) {
    let seed = place.seed();
    let mut header = [0u8; FRAGMENT_HEADER_BYTES];
    header[4..8].copy_from_slice(&crc32c_append(seed, body).to_le_bytes());
    header[8..10].copy_from_slice(&(body.len() as u16).to_le_bytes());
    header[10..12].copy_from_slice(&(if fragment.last { LAST } else { 0 }).to_le_bytes());
    header[12..16].copy_from_slice(&fragment.index.to_le_bytes());
    header[16..24].copy_from_slice(&fragment.group.to_le_bytes());
    let crc = crc32c_append(seed, &header[4..]);
    header[0..4].copy_from_slice(&crc.to_le_bytes());
    let start = place.at + FRAGMENT_HEADER_BYTES;
    for block in stripe.chunks_exact_mut(BLOCK_BYTES) {
        block[place.at..start].copy_from_slice(&header);
        block[start..start + body.len()].copy_from_slice(body);
    }
}

/// Reads a fragment out of one block: its header is trusted before its length is.
pub(super) fn read_fragment(block: &[u8], place: Place) -> Option<(Fragment, &[u8])> {
    let start = place.at + FRAGMENT_HEADER_BYTES;
    let header = block.get(place.at..start)?;
    let seed = place.seed();
    if crc32c_append(seed, &header[4..]) != u32_at(header, 0) {
        return None;
    }
    let len = usize::from(u16_at(header, 8));
    let body = block.get(start..start + len)?;
    let whole = crc32c_append(seed, body) == u32_at(header, 4);
    if !whole && !planted::is(Fault::TornTailAccepted) {
        return None;
    }
    let last = u16_at(header, 10) & LAST != 0;
    Some((
        Fragment {
            group: u64_at(header, 16),
            index: u32_at(header, 12),
            last,
            len,
        },
        body,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aurora_proto::NodeId;

    #[test]
    fn a_fragment_counts_only_at_its_place() {
        let nodes = NodeSet::one(NodeId(0)).with(NodeId(3));
        let mut stripe = Vec::new();
        push_stripe(&mut stripe, nodes, 7, 5, Position::START);
        let place = Place {
            salt: 7,
            stripe: 5,
            at: HEADER_BYTES,
        };
        let fragment = Fragment {
            group: 9,
            index: 0,
            last: true,
            len: 3,
        };
        put_fragment(&mut stripe, place, fragment, b"abc");
        for block in stripe.chunks(BLOCK_BYTES) {
            assert_eq!(read_fragment(block, place), Some((fragment, &b"abc"[..])));
            assert_eq!(read_fragment(block, Place { stripe: 6, ..place }), None);
            assert_eq!(read_fragment(block, Place { salt: 8, ..place }), None);
            assert!(read_header(block, 8).is_none());
        }
        let second = read_header(&stripe[BLOCK_BYTES..], 7).expect("header");
        assert_eq!(
            (second.slot, second.slots, second.node, second.stripe),
            (1, 2, 3, 5)
        );
    }

    #[test]
    fn any_flipped_bit_is_seen() {
        let mut stripe = Vec::new();
        push_stripe(&mut stripe, NodeSet::one(NodeId(0)), 1, 2, Position::START);
        let place = Place {
            salt: 1,
            stripe: 2,
            at: HEADER_BYTES,
        };
        put_fragment(
            &mut stripe,
            place,
            Fragment {
                group: 1,
                index: 0,
                last: true,
                len: 8,
            },
            b"12345678",
        );
        for byte in 0..HEADER_BYTES + FRAGMENT_HEADER_BYTES + 8 {
            for bit in 0..8 {
                stripe[byte] ^= 1 << bit;
                let seen =
                    read_header(&stripe, 1).is_none() || read_fragment(&stripe, place).is_none();
                assert!(seen, "byte {byte} bit {bit}");
                stripe[byte] ^= 1 << bit;
            }
        }
    }
}
