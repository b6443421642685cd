//! The content of a page, whatever its form and history.

use crate::bytes_at::{put_u32, put_u64};
use crate::header::HEADER_BYTES;
use crate::inner::InnerRef;
use crate::leaf::LeafRef;
use crate::page::Page;
use crate::varint::put_varint;

/// Bytes that are equal for two pages exactly if these mean the same: header, layout, and rows or entries in key order.
/// Slots, holes in the heap, zones and stale bytes do not matter, so copies that were sealed at different times agree.
pub fn canonical(page: &Page) -> Vec<u8> {
    let mut out = header(page);
    if let Ok(leaf) = LeafRef::new(page) {
        put_slice(&mut out, &leaf.layout());
        put_varint(&mut out, leaf.len() as u64);
        (0..leaf.len()).for_each(|rank| put_slice(&mut out, &leaf.row_bytes(rank)));
    } else if let Ok(inner) = InnerRef::new(page) {
        out.push(inner.level());
        put_varint(&mut out, inner.child(0).0);
        for (key, child) in inner.entries() {
            put_slice(&mut out, key);
            put_varint(&mut out, child.0);
        }
    } else {
        // Free, overflow and extent-map pages have one form only.
        out.extend_from_slice(&page.bytes()[HEADER_BYTES..]);
    }
    out
}

fn header(page: &Page) -> Vec<u8> {
    let mut out = vec![0; 49];
    put_u64(&mut out, 0, page.id().0);
    put_u64(&mut out, 8, page.object().0);
    put_u64(&mut out, 16, page.origin().0);
    put_u64(&mut out, 24, page.lsn().0);
    put_u64(&mut out, 32, page.prev_lsn().0);
    put_u32(&mut out, 40, page.schema_version());
    put_u32(&mut out, 44, page.bytes().len() as u32);
    out[48] = page.kind() as u8;
    out
}

fn put_slice(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
