//! Packed objects: chunks that can be read one by one, each compressed, perhaps encrypted, and checksummed.
//!
//! ```text
//!   object   | head, 48 | chunk 0 | chunk 1 | ... | table, 12 x chunks | tail, 56 |
//!   head      magic "AUbk" | format u16 | flags u16, bit 0 = encrypted | salt, 32 | raw bytes of a chunk u32 | crc u32 of what is before
//!   chunk     a zstd frame; encrypted: AES-256-GCM of it, 16 bytes of tag behind it
//!   table     for each chunk: stored length u32 | raw length u32 | crc u32 of the stored bytes
//!   tail      raw length u64 | chunks u32 | crc u32 of the table | sha-256 of everything before, 32 | crc u32 of what is before | "kbUA"
//! ```
//! `docs/design/backup.md` draws every byte. Nothing here does I/O.

use std::ops::Range;

use aurora_page::crc32c;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{self, SHA256};
use ring::hkdf::{self, HKDF_SHA256};
use ring::rand::{SecureRandom, SystemRandom};

/// The format of packed objects and manifests.
pub(crate) const FORMAT: u16 = 1;
/// Raw bytes of a chunk.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
pub(crate) const HEAD_BYTES: usize = 48;
pub(crate) const TAIL_BYTES: usize = 56;
pub(crate) const ENTRY_BYTES: usize = 12;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
const MAGIC: &[u8; 4] = b"AUbk";
const TAIL_MAGIC: &[u8; 4] = b"kbUA";
const ENCRYPTED: u16 = 1;
/// No chunk is larger, whatever a head says.
const CHUNK_BYTES_MAX: usize = 64 << 20;
const LEVEL: i32 = 3;
const OBJECT_INFO: &[u8] = b"aurora-engine backup 1 ";
const CHECK_INFO: &[u8] = b"aurora-engine backup 1 key check";

/// What is wrong with a packed object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: expected {expected}, got {got}")]
pub(crate) struct Damaged {
    pub(crate) at: u64,
    pub(crate) expected: String,
    pub(crate) got: String,
}

fn damaged(at: u64, expected: impl ToString, got: impl ToString) -> Damaged {
    Damaged {
        at,
        expected: expected.to_string(),
        got: got.to_string(),
    }
}

/// The key of a backup.
#[derive(Clone)]
pub(crate) struct Key([u8; KEY_BYTES]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key {
    pub(crate) fn new(bytes: [u8; KEY_BYTES]) -> Key {
        Key(bytes)
    }

    /// What tells this key from another without telling the key.
    pub(crate) fn check(&self) -> String {
        let mut out = [0; 16];
        self.derive(&[], &[CHECK_INFO], &mut out);
        hex(&out)
    }

    fn derive(&self, salt: &[u8], info: &[&[u8]], out: &mut [u8]) {
        let prk = hkdf::Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let okm = prk.expand(info, Length(out.len()));
        okm.and_then(|okm| okm.fill(out))
            .expect("HKDF gives up to 8160 bytes");
    }

    fn of_object(&self, salt: &[u8; 32], name: &str) -> LessSafeKey {
        let mut key = [0; KEY_BYTES];
        self.derive(salt, &[OBJECT_INFO, name.as_bytes()], &mut key);
        let key = UnboundKey::new(&AES_256_GCM, &key).expect("a key of 32 bytes");
        LessSafeKey::new(key)
    }
}

fn nonce(chunk: u32) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&u64::from(chunk).to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// What is known of an object once it is packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Bytes of the object.
    pub(crate) bytes: u64,
    /// Bytes of its content.
    pub(crate) raw: u64,
    /// SHA-256 of everything before the tail.
    pub(crate) sha256: String,
}

/// Packs a content that comes piece by piece; what it gives is written out in order.
pub(crate) struct Packer {
    key: Option<LessSafeKey>,
    sha: digest::Context,
    table: Vec<u8>,
    chunks: u32,
    raw: u64,
    bytes: u64,
}

impl Packer {
    /// Begins an object of this name; the first bytes of it.
    pub(crate) fn new(name: &str, key: Option<&Key>) -> (Packer, Vec<u8>) {
        let mut salt = [0; 32];
        if key.is_some() {
            SystemRandom::new()
                .fill(&mut salt)
                .expect("the system gives random bytes");
        }
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&FORMAT.to_le_bytes());
        head.extend_from_slice(&key.map_or(0, |_| ENCRYPTED).to_le_bytes());
        head.extend_from_slice(&salt);
        head.extend_from_slice(&(CHUNK_BYTES as u32).to_le_bytes());
        let crc = crc32c(&head);
        head.extend_from_slice(&crc.to_le_bytes());
        let mut packer = Packer {
            key: key.map(|key| key.of_object(&salt, name)),
            sha: digest::Context::new(&SHA256),
            table: Vec::new(),
            chunks: 0,
            raw: 0,
            bytes: 0,
        };
        packer.count(&head);
        (packer, head)
    }

    fn count(&mut self, out: &[u8]) {
        self.sha.update(out);
        self.bytes += out.len() as u64;
    }

    /// The next chunk: all but the last have [`CHUNK_BYTES`].
    pub(crate) fn chunk(&mut self, raw: &[u8]) -> Result<Vec<u8>, std::io::Error> {
        let mut stored = zstd::bulk::compress(raw, LEVEL)?;
        if let Some(key) = &self.key {
            key.seal_in_place_append_tag(nonce(self.chunks), Aad::empty(), &mut stored)
                .map_err(|_| std::io::Error::other("AES-256-GCM refused a chunk"))?;
        }
        for number in [stored.len() as u32, raw.len() as u32, crc32c(&stored)] {
            self.table.extend_from_slice(&number.to_le_bytes());
        }
        self.chunks += 1;
        self.raw += raw.len() as u64;
        self.count(&stored);
        Ok(stored)
    }

    /// Table and tail, and what is known now.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Packed) {
        let mut out = std::mem::take(&mut self.table);
        self.count(&out);
        let table_crc = crc32c(&out);
        let sha = self.sha.finish();
        let mut tail = Vec::with_capacity(TAIL_BYTES);
        tail.extend_from_slice(&self.raw.to_le_bytes());
        tail.extend_from_slice(&self.chunks.to_le_bytes());
        tail.extend_from_slice(&table_crc.to_le_bytes());
        tail.extend_from_slice(sha.as_ref());
        let crc = crc32c(&tail);
        tail.extend_from_slice(&crc.to_le_bytes());
        tail.extend_from_slice(TAIL_MAGIC);
        out.extend_from_slice(&tail);
        let packed = Packed {
            bytes: self.bytes + TAIL_BYTES as u64,
            raw: self.raw,
            sha256: hex(sha.as_ref()),
        };
        (out, packed)
    }
}

/// Packs a content that is there as a whole.
pub(crate) fn pack(
    name: &str,
    key: Option<&Key>,
    raw: &[u8],
) -> Result<(Vec<u8>, Packed), std::io::Error> {
    let (mut packer, mut out) = Packer::new(name, key);
    for chunk in raw.chunks(CHUNK_BYTES) {
        out.extend_from_slice(&packer.chunk(chunk)?);
    }
    let (end, packed) = packer.finish();
    out.extend_from_slice(&end);
    Ok((out, packed))
}

/// The last bytes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) raw: u64,
    pub(crate) chunks: u32,
    table_crc: u32,
    pub(crate) sha256: String,
}

impl Tail {
    /// Reads the tail of an object of `size` bytes.
    pub(crate) fn read(bytes: &[u8], size: u64) -> Result<Tail, Damaged> {
        let at = size.saturating_sub(TAIL_BYTES as u64);
        if bytes.len() != TAIL_BYTES {
            let expected = format!("a tail of {TAIL_BYTES} bytes");
            return Err(damaged(at, expected, format!("{} bytes", bytes.len())));
        }
        if bytes[52..] != *TAIL_MAGIC {
            return Err(damaged(
                at + 52,
                "magic kbUA",
                format!("{:02x?}", &bytes[52..]),
            ));
        }
        let (stored, got) = (u32_at(bytes, 48), crc32c(&bytes[..48]));
        if stored != got {
            return Err(damaged(
                at,
                format!("crc {stored:08x}"),
                format!("crc {got:08x}"),
            ));
        }
        let tail = Tail {
            raw: u64::from(u32_at(bytes, 0)) | u64::from(u32_at(bytes, 4)) << 32,
            chunks: u32_at(bytes, 8),
            table_crc: u32_at(bytes, 12),
            sha256: hex(&bytes[16..48]),
        };
        let least = (HEAD_BYTES + TAIL_BYTES) as u64 + tail.table_bytes();
        match size >= least {
            true => Ok(tail),
            false => Err(damaged(at, format!("at least {least} bytes"), size)),
        }
    }

    pub(crate) fn table_bytes(&self) -> u64 {
        u64::from(self.chunks) * ENTRY_BYTES as u64
    }

    /// Where the table of an object of `size` bytes is.
    pub(crate) fn table_at(&self, size: u64) -> Range<u64> {
        let end = size - TAIL_BYTES as u64;
        end - self.table_bytes()..end
    }
}

/// One chunk: where it lies, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkEntry {
    pub(crate) at: u64,
    pub(crate) stored: u32,
    pub(crate) raw: u32,
    crc: u32,
}

/// Where the chunks of an object are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table(pub(crate) Vec<ChunkEntry>);

impl Table {
    /// Reads the table of an object of `size` bytes.
    pub(crate) fn read(bytes: &[u8], tail: &Tail, size: u64) -> Result<Table, Damaged> {
        let place = tail.table_at(size);
        let got = crc32c(bytes);
        if got != tail.table_crc || bytes.len() as u64 != tail.table_bytes() {
            let expected = format!("a table with crc {:08x}", tail.table_crc);
            return Err(damaged(place.start, expected, format!("crc {got:08x}")));
        }
        let (mut at, mut raw_at) = (HEAD_BYTES as u64, 0);
        let mut entries = Vec::with_capacity(tail.chunks as usize);
        for entry in bytes.chunks_exact(ENTRY_BYTES) {
            let entry = ChunkEntry {
                at,
                stored: u32_at(entry, 0),
                raw: u32_at(entry, 4),
                crc: u32_at(entry, 8),
            };
            at += u64::from(entry.stored);
            raw_at += u64::from(entry.raw);
            entries.push(entry);
        }
        if (at, raw_at) != (place.start, tail.raw) {
            let expected = format!("chunks up to {}, {} raw bytes", place.start, tail.raw);
            return Err(damaged(place.start, expected, format!("{at}, {raw_at}")));
        }
        Ok(Table(entries))
    }
}

/// Opens the chunks of one object.
pub(crate) struct Unpacker(Option<LessSafeKey>);

impl Unpacker {
    /// Reads the head of an object of this name.
    pub(crate) fn read(head: &[u8], name: &str, key: Option<&Key>) -> Result<Unpacker, Damaged> {
        if head.len() != HEAD_BYTES || head[..4] != *MAGIC {
            return Err(damaged(0, "magic AUbk", format!("{:02x?}", head.get(..4))));
        }
        let (stored, got) = (u32_at(head, 44), crc32c(&head[..44]));
        if stored != got {
            return Err(damaged(
                0,
                format!("crc {stored:08x}"),
                format!("crc {got:08x}"),
            ));
        }
        let format = u16::from_le_bytes([head[4], head[5]]);
        let flags = u16::from_le_bytes([head[6], head[7]]);
        if format != FORMAT || flags & !ENCRYPTED != 0 {
            let got = format!("format {format}, flags {flags}");
            return Err(damaged(4, format!("format {FORMAT}"), got));
        }
        match (flags & ENCRYPTED != 0, key) {
            (true, Some(key)) => {
                let mut salt = [0; 32];
                salt.copy_from_slice(&head[8..40]);
                Ok(Unpacker(Some(key.of_object(&salt, name))))
            }
            (false, None) => Ok(Unpacker(None)),
            (encrypted, _) => {
                let named = |encrypted| {
                    if encrypted {
                        "an encrypted object"
                    } else {
                        "a plain object"
                    }
                };
                Err(damaged(6, named(!encrypted), named(encrypted)))
            }
        }
    }

    /// The content of a chunk.
    pub(crate) fn chunk(
        &self,
        number: u32,
        entry: &ChunkEntry,
        mut stored: Vec<u8>,
    ) -> Result<Vec<u8>, Damaged> {
        let got = crc32c(&stored);
        if got != entry.crc || stored.len() != entry.stored as usize {
            let (expected, got) = (format!("crc {:08x}", entry.crc), format!("crc {got:08x}"));
            return Err(damaged(entry.at, expected, got));
        }
        if let Some(key) = &self.0 {
            let opened = key.open_in_place(nonce(number), Aad::empty(), &mut stored);
            let len = opened
                .map_err(|_| damaged(entry.at, "a chunk that this key has sealed", "another"))?
                .len();
            stored.truncate(len);
        }
        if entry.raw as usize > CHUNK_BYTES_MAX {
            let expected = format!("at most {CHUNK_BYTES_MAX} bytes");
            return Err(damaged(entry.at, expected, entry.raw));
        }
        let raw = zstd::bulk::decompress(&stored, entry.raw as usize)
            .map_err(|error| damaged(entry.at, "a zstd frame", error))?;
        match raw.len() == entry.raw as usize {
            true => Ok(raw),
            false => Err(damaged(entry.at, format!("{} bytes", entry.raw), raw.len())),
        }
    }
}

/// The content of an object that is there as a whole, and what it is known by. Every byte of it is checked.
pub(crate) fn unpack(
    name: &str,
    key: Option<&Key>,
    object: &[u8],
) -> Result<(Vec<u8>, Packed), Damaged> {
    let size = object.len() as u64;
    let tail_at = object
        .len()
        .checked_sub(TAIL_BYTES)
        .filter(|at| *at >= HEAD_BYTES);
    let tail_at = tail_at.ok_or_else(|| damaged(0, "a packed object", format!("{size} bytes")))?;
    let tail = Tail::read(&object[tail_at..], size)?;
    let sha256 = hex(digest::digest(&SHA256, &object[..tail_at]).as_ref());
    if sha256 != tail.sha256 {
        return Err(damaged(0, format!("sha-256 {}", tail.sha256), sha256));
    }
    let place = tail.table_at(size);
    let table = Table::read(&object[place.start as usize..tail_at], &tail, size)?;
    let unpacker = Unpacker::read(&object[..HEAD_BYTES], name, key)?;
    let mut raw = Vec::with_capacity(tail.raw.min(1 << 30) as usize);
    for (number, entry) in (0..).zip(&table.0) {
        let stored = object[entry.at as usize..][..entry.stored as usize].to_vec();
        raw.extend_from_slice(&unpacker.chunk(number, entry, stored)?);
    }
    let packed = Packed {
        bytes: size,
        raw: tail.raw,
        sha256,
    };
    Ok((raw, packed))
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Vec<u8> {
        (0..CHUNK_BYTES * 2 + 1000)
            .map(|i| (i % 251) as u8 ^ (i / 1000) as u8)
            .collect()
    }

    #[test]
    fn a_content_comes_back() {
        let key = Key::new([7; 32]);
        for key in [None, Some(&key)] {
            for raw in [Vec::new(), vec![1], content()] {
                let (object, packed) = pack("log/x", key, &raw).expect("packed");
                assert_eq!(packed.bytes, object.len() as u64);
                assert_eq!(unpack("log/x", key, &object), Ok((raw, packed)));
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let key = Key::new([7; 32]);
        for key in [None, Some(&key)] {
            let (object, _) = pack("log/x", key, b"something that is short").expect("packed");
            for at in 0..object.len() {
                let mut other = object.clone();
                other[at] ^= 0x10;
                assert!(unpack("log/x", key, &other).is_err(), "byte {at}");
                assert!(unpack("log/x", key, &object[..at]).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn another_key_and_another_name_do_not_open_it() {
        let key = Key::new([7; 32]);
        let (object, _) = pack("log/x", Some(&key), b"secret").expect("packed");
        assert!(unpack("log/y", Some(&key), &object).is_err());
        assert!(unpack("log/x", Some(&Key::new([8; 32])), &object).is_err());
        assert!(unpack("log/x", None, &object).is_err());
        assert_ne!(key.check(), Key::new([8; 32]).check());
    }

    #[test]
    fn one_chunk_can_be_read_alone() {
        let raw = content();
        let (object, _) = pack("log/x", None, &raw).expect("packed");
        let size = object.len() as u64;
        let tail = Tail::read(&object[object.len() - TAIL_BYTES..], size).expect("a tail");
        let place = tail.table_at(size);
        let table = Table::read(
            &object[place.start as usize..place.end as usize],
            &tail,
            size,
        )
        .expect("a table");
        let number = 1;
        let entry = table.0[number];
        let unpacker = Unpacker::read(&object[..HEAD_BYTES], "log/x", None).expect("a head");
        let stored = object[entry.at as usize..][..entry.stored as usize].to_vec();
        let chunk = unpacker
            .chunk(number as u32, &entry, stored)
            .expect("a chunk");
        assert_eq!(chunk, raw[CHUNK_BYTES..CHUNK_BYTES * 2]);
    }
}
