//! Blocks of a layer: compressed, checksummed, read back with every doubt.

use std::path::Path;

use aurora_page::planted::{self, Fault};
use aurora_page::{crc32c, crc32c_append};
use bytes::Bytes;

use crate::disk::DiskFile;
use crate::error::StoreError;

pub(crate) const FRAME_BYTES: usize = 16;
/// No block is larger: a length beyond it is damage, not a reason to allocate.
const BLOCK_BYTES_MAX: usize = 256 << 20;
/// LZ4 makes nothing so many times smaller: a longer length is damage, too.
const LZ4_TIMES_MAX: usize = 255;
const PLAIN: u32 = 0;
const LZ4: u32 = 1;

/// Appends a block; compressed when that makes it smaller.
pub(crate) fn put_block(out: &mut Vec<u8>, raw: &[u8], compress: bool) {
    let packed = compress
        .then(|| lz4_flex::block::compress(raw))
        .filter(|p| p.len() < raw.len());
    let (codec, stored) = packed.as_deref().map_or((PLAIN, raw), |p| (LZ4, p));
    let mut head = [0u8; 12];
    head[0..4].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    head[4..8].copy_from_slice(&(stored.len() as u32).to_le_bytes());
    head[8..12].copy_from_slice(&codec.to_le_bytes());
    let crc = crc32c_append(crc32c(&head), stored);
    out.extend_from_slice(&head);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(stored);
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// Reads the block at `offset` that takes `len` bytes of the file, its head included.
pub(crate) fn read_block(
    file: &dyn DiskFile,
    path: &Path,
    offset: u64,
    len: usize,
) -> Result<Bytes, StoreError> {
    if !(FRAME_BYTES..=BLOCK_BYTES_MAX).contains(&len) {
        return Err(StoreError::corrupt(
            path,
            offset,
            "a block of sensible length",
            format!("{len} bytes"),
        ));
    }
    let room = file.len().map_err(StoreError::io(path))?;
    if offset.saturating_add(len as u64) > room {
        let expected = format!("a block of {len} bytes");
        return Err(StoreError::corrupt(
            path,
            offset,
            expected,
            "the end of the file",
        ));
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => StoreError::corrupt(
                path,
                offset,
                format!("a block of {len} bytes"),
                "the end of the file",
            ),
            _ => StoreError::io(path)(source),
        })?;
    let (raw_len, stored_len, codec) = (
        u32_at(&bytes, 0) as usize,
        u32_at(&bytes, 4) as usize,
        u32_at(&bytes, 8),
    );
    let (got, expected) = (
        crc32c_append(crc32c(&bytes[..12]), &bytes[FRAME_BYTES..]),
        u32_at(&bytes, 12),
    );
    let differs = got != expected && !planted::is(Fault::CrcIgnored);
    if differs || stored_len != len - FRAME_BYTES {
        let (expected, got) = (format!("crc {expected:08x}"), format!("crc {got:08x}"));
        return Err(StoreError::corrupt(path, offset, expected, got));
    }
    let raw_max = BLOCK_BYTES_MAX.min(stored_len.saturating_mul(LZ4_TIMES_MAX));
    if raw_len > raw_max {
        let expected = format!("at most {raw_max} bytes in a block of {len}");
        return Err(StoreError::corrupt(path, offset, expected, raw_len));
    }
    let stored = Bytes::from(bytes).slice(FRAME_BYTES..);
    match codec {
        PLAIN => Ok(stored),
        LZ4 => lz4_flex::block::decompress(&stored, raw_len)
            .map(Bytes::from)
            .map_err(|e| StoreError::corrupt(path, offset, format!("{raw_len} bytes of LZ4"), e)),
        other => Err(StoreError::corrupt(path, offset, "codec 0 or 1", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, OpenMode};
    use crate::memdisk::MemDisk;

    fn refused(bytes: &[u8], len: usize) -> String {
        let (disk, path) = (MemDisk::new(), Path::new("/d/layer"));
        disk.create_dir_all(Path::new("/d")).expect("a directory");
        let file = disk.open(path, OpenMode::Create).expect("a file");
        file.write_all_at(bytes, 0).expect("room");
        read_block(&*file, path, 0, len)
            .expect_err("damage")
            .to_string()
    }

    /// Fuzzing found it: 41 bytes with a good checksum said that they were 94 MiB, and so much memory was taken for them; and a
    /// length of 250 MiB was believed before anybody looked how long the file is.
    #[test]
    fn lengths_are_not_believed_before_they_can_be_true() {
        let mut block = Vec::new();
        put_block(&mut block, &[7; 400], true);
        block[0..4].copy_from_slice(&(94u32 << 20).to_le_bytes());
        let crc = crc32c_append(crc32c(&block[..12]), &block[FRAME_BYTES..]);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        let told = refused(&block, block.len());
        assert!(told.contains("bytes in a block of"), "{told}");
        let told = refused(&block, 250 << 20);
        assert!(told.contains("the end of the file"), "{told}");
    }
}
