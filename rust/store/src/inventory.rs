//! Which layers a node must have: without it, a layer file that somebody removed would leave older rows that look right.
//!
//! ```text
//!   layers.list   magic "AUll" | crc u32 of what follows | format u16 | varints: count, each layer's number less the one before
//! ```
//! It is written after the layers that it names, and before the files of replaced ones are removed. So every layer that
//! it names is there when the node opens, or one that is there says that it replaces it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aurora_page::crc32c;
use aurora_redo::varint::{Reader, put_u64};

use crate::disk::{Disk, OpenMode};
use crate::error::StoreError;

const MAGIC: &[u8; 4] = b"AUll";
const FORMAT: u16 = 1;
const HEADER_BYTES: usize = 10;

fn path_of(layers: &Path) -> PathBuf {
    layers.with_extension("list")
}

/// Writes the list of the layers in the directory `layers`.
pub(crate) fn write(
    disk: &dyn Disk,
    layers: &Path,
    numbers: &BTreeSet<u64>,
) -> Result<(), StoreError> {
    let (path, temp) = (path_of(layers), layers.with_extension("list.new"));
    if disk.exists(&temp) {
        disk.remove_file(&temp).map_err(StoreError::io(&temp))?;
    }
    let file = disk
        .open(&temp, OpenMode::Create)
        .map_err(StoreError::io(&temp))?;
    file.write_all_at(&encode(numbers), 0)
        .map_err(StoreError::io(&temp))?;
    file.sync_data().map_err(StoreError::io(&temp))?;
    disk.rename(&temp, &path).map_err(StoreError::io(&path))?;
    let dir = path.parent().unwrap_or(layers);
    disk.sync_dir(dir).map_err(StoreError::io(dir))
}

/// Reads the list; a node without one is damaged.
pub(crate) fn read(disk: &dyn Disk, layers: &Path) -> Result<BTreeSet<u64>, StoreError> {
    let path = path_of(layers);
    if !disk.exists(&path) {
        return Err(StoreError::corrupt(
            &path,
            0,
            "the list of layers",
            "no file",
        ));
    }
    let file = disk
        .open(&path, OpenMode::Read)
        .map_err(StoreError::io(&path))?;
    let mut bytes = vec![0; file.len().map_err(StoreError::io(&path))? as usize];
    file.read_exact_at(&mut bytes, 0)
        .map_err(StoreError::io(&path))?;
    decode(&path, &bytes)
}

fn encode(numbers: &BTreeSet<u64>) -> Vec<u8> {
    let mut body = FORMAT.to_le_bytes().to_vec();
    put_u64(&mut body, numbers.len() as u64);
    let mut last = 0;
    for &number in numbers {
        put_u64(&mut body, number - last);
        last = number;
    }
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&crc32c(&body).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

fn decode(path: &Path, bytes: &[u8]) -> Result<BTreeSet<u64>, StoreError> {
    if bytes.len() < HEADER_BYTES || bytes[..4] != *MAGIC {
        return Err(StoreError::corrupt(
            path,
            0,
            "magic AUll",
            format!("{} bytes", bytes.len()),
        ));
    }
    let stored = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let got = crc32c(&bytes[8..]);
    if stored != got {
        return Err(StoreError::corrupt(
            path,
            0,
            format!("crc {stored:08x}"),
            format!("crc {got:08x}"),
        ));
    }
    let format = u16::from_le_bytes([bytes[8], bytes[9]]);
    if format != FORMAT {
        return Err(StoreError::NewerFormat {
            path: path.to_path_buf(),
            expected: FORMAT,
            got: format,
        });
    }
    let body = || {
        let mut reader = Reader::new("list of layers", &bytes[HEADER_BYTES..]);
        let mut numbers = BTreeSet::new();
        let mut last = 0_u64;
        for _ in 0..reader.u64()? {
            last = last.wrapping_add(reader.u64()?);
            numbers.insert(last);
        }
        reader.finish()?;
        Ok::<_, aurora_redo::RedoError>(numbers)
    };
    body()
        .map_err(|error| StoreError::corrupt(path, HEADER_BYTES as u64, "a list of layers", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_byte_is_noticed() {
        let numbers = BTreeSet::from([1, 2, 300, u64::MAX]);
        let (path, bytes) = (Path::new("layers.list"), encode(&numbers));
        assert_eq!(decode(path, &bytes).expect("as written"), numbers);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            assert!(decode(path, &damaged).is_err(), "byte {at}");
            assert!(decode(path, &bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
