//! Numbers of varying length: seven bits a byte, the low ones first, the top bit set on all but the last byte.

use crate::error::RowError;

/// Appends a number: 1 byte below 128, 2 below 16,384, 10 at the most.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a number and moves `at` behind it. One that goes on after the ninth byte, or that ends with a byte it does not
/// need, is refused: every number has one form.
pub fn read_varint(bytes: &[u8], at: &mut usize) -> Result<u64, RowError> {
    let start = *at;
    let mut value = 0;
    for (index, byte) in bytes.get(start..).unwrap_or(&[]).iter().enumerate() {
        let bits = u64::from(byte & 0x7F);
        if index > 9 || (index == 9 && *byte > 1) || (index > 0 && *byte == 0) {
            return Err(RowError::Varint { at: start });
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            *at = start + index + 1;
            return Ok(value);
        }
    }
    Err(RowError::Truncated {
        at: bytes.len(),
        expected: 1,
        got: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_at_the_edges() {
        for value in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            u64::from(u32::MAX),
            1 << 62,
            1 << 63,
            u64::MAX,
        ] {
            let mut bytes = vec![9];
            put_varint(&mut bytes, value);
            let mut at = 1;
            assert_eq!(read_varint(&bytes, &mut at), Ok(value));
            assert_eq!(at, bytes.len());
            assert!(read_varint(&bytes[..bytes.len() - 1], &mut 1).is_err());
        }
    }

    #[test]
    fn other_forms_are_refused() {
        assert_eq!(
            read_varint(&[0x80, 0], &mut 0),
            Err(RowError::Varint { at: 0 })
        );
        assert_eq!(
            read_varint(&[0xFF; 12], &mut 0),
            Err(RowError::Varint { at: 0 })
        );
    }
}
