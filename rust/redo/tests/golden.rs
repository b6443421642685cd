//! The bytes of every log format, held against files. `AURORA_BLESS=1` writes the files anew: do that only together
//! with a new format number.

#![expect(
    clippy::disallowed_methods,
    reason = "a test that reads and blesses its golden files"
)]

use std::path::Path;

use aurora_page::{Lsn, VolumeId};
use aurora_redo::{History, Op};

mod samples;

fn golden(name: &str, got: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("AURORA_BLESS").is_some() {
        std::fs::write(&path, got).expect("golden file written");
    }
    let expected = std::fs::read(&path).expect("golden file");
    assert_eq!(
        got, expected,
        "{name} has changed; a changed format needs a new format number"
    );
}

#[test]
fn batch() {
    golden("batch-v1.bin", &samples::sample_batch().encode());
}

#[test]
fn ops() {
    let lists = samples::Lists::new();
    let mut out = Vec::new();
    for op in samples::every_op(&lists) {
        let bytes = op.encode();
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&bytes);
        assert_eq!(Op::parse(&bytes), Ok(op));
    }
    golden("ops-v1.bin", &out);
}

#[test]
fn records() {
    let mut out = Vec::new();
    samples::sample_batch()
        .records
        .iter()
        .for_each(|r| r.encode_into(&mut out));
    golden("records-v1.bin", &out);
}

#[test]
fn history() {
    let of_a = History::new(VolumeId(0xa)).branch(Lsn(104), VolumeId(0xa), 100);
    let of_b = of_a.branch(Lsn(550), VolumeId(0xb), 100);
    golden("history-v1.bin", &of_b.encode());
}
