//! What comes from a disk is not believed: every flipped byte, a wrong page, a wrong length are noticed [7].

mod common;

use aurora_page::*;
use common::*;

fn small_leaf() -> Page {
    let schema = compound_schema();
    let mut page = leaf(&schema, 1024, 8);
    for (rank, name) in ["a", "b"].into_iter().enumerate() {
        let row = [
            Value::Null,
            Value::Text(name.into()),
            Value::Int(1),
            Value::Float64(0.5),
        ];
        LeafMut::new(&mut page)
            .unwrap()
            .insert(rank, &encode_row(&schema, &row))
            .unwrap();
    }
    page.stamp(VolumeId(3), Lsn(17));
    page
}

#[test]
fn every_flipped_byte_is_noticed() {
    let page = small_leaf();
    let good = page.to_disk();
    assert!(Page::from_disk(good.clone(), page.id()).is_ok());
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            let error = Page::from_disk(bytes, page.id()).expect_err("a flipped byte");
            match at {
                0..4 => assert!(matches!(error, PageError::Magic { .. }), "{error}"),
                4..6 => assert!(matches!(error, PageError::Format { .. }), "{error}"),
                _ => assert!(matches!(error, PageError::Crc { .. }), "{at}: {error}"),
            }
        }
    }
}

#[test]
fn errors_say_expected_and_got() {
    let page = small_leaf();
    let good = page.to_disk();
    let read = |bytes: Box<[u8]>, id| Page::from_disk(bytes, PageId(id)).unwrap_err().to_string();
    assert_eq!(
        read(good.clone(), 43),
        "page 43: expected page id 43, got 42"
    );
    assert_eq!(
        read(good[..1000].into(), 42),
        "page 42: expected 1024 bytes, got 1000"
    );
    assert_eq!(
        read(Box::new([]), 42),
        "page 42: expected 32768 bytes, got 0"
    );
    let zeros = vec![0; 1024].into_boxed_slice();
    assert_eq!(
        read(zeros, 42),
        "page 42: expected magic [41, 50, 47, 31], got [00, 00, 00, 00]"
    );
    let mut newer = good.clone();
    newer[4] = 2;
    assert_eq!(read(newer, 42), "page 42: expected format version 1, got 2");
    // Half of a longer page, with a CRC of its own.
    let mut claimed = good;
    claimed[52..56].copy_from_slice(&2048u32.to_le_bytes());
    let crc = crc32c_append(crc32c(&claimed[..60]), &claimed[64..]);
    claimed[60..64].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(read(claimed, 42), "page 42: expected 2048 bytes, got 1024");
}

#[test]
fn the_header_is_stamped_and_a_new_life_forgets_it() {
    let mut page = small_leaf();
    page.stamp(VolumeId(4), Lsn(20));
    assert_eq!(
        (page.origin(), page.lsn(), page.prev_lsn()),
        (VolumeId(4), Lsn(20), Lsn(17))
    );
    assert_eq!(
        (page.kind(), page.object(), page.schema_version()),
        (PageKind::Leaf, ObjectId(5), 1)
    );
    page.reset(PageKind::Free, ObjectId(0), 0);
    assert!(page == Page::empty(PageId(42), 1024));
    let error = LeafRef::new(&page).err().unwrap();
    assert_eq!(
        error.to_string(),
        "page 42: expected a page of kind leaf, got free"
    );
}
