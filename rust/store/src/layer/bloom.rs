//! A filter over page ids: says "not here" for certain, "here" with about one error in a hundred.

use aurora_page::PageId;

const BITS_PER_PAGE: usize = 10;
const PROBES: u64 = 6;

/// A blocked-free Bloom filter; the bytes are what is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bloom(Vec<u8>);

fn mix(page: u64) -> u64 {
    let mut z = page.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Bloom {
    pub(crate) fn build(pages: &[u64]) -> Bloom {
        let bytes = (pages.len() * BITS_PER_PAGE).div_ceil(8).max(8);
        let mut bloom = Bloom(vec![0; bytes]);
        let bits = bytes as u64 * 8;
        for page in pages {
            let hash = mix(*page);
            for bit in probes(hash, bits) {
                bloom.0[(bit / 8) as usize] |= 1 << (bit % 8);
            }
        }
        bloom
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Bloom {
        Bloom(bytes.to_vec())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn may_contain(&self, page: PageId) -> bool {
        let bits = self.0.len() as u64 * 8;
        bits == 0
            || probes(mix(page.0), bits)
                .all(|bit| self.0[(bit / 8) as usize] & (1 << (bit % 8)) != 0)
    }
}

fn probes(hash: u64, bits: u64) -> impl Iterator<Item = u64> {
    let step = (hash >> 32) | 1;
    (0..PROBES).map(move |i| hash.wrapping_add(i.wrapping_mul(step)) % bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_all_and_little_else() {
        let pages: Vec<u64> = (0..5000).map(|i| i * 7).collect();
        let bloom = Bloom::build(&pages);
        assert!(pages.iter().all(|p| bloom.may_contain(PageId(*p))));
        let wrong = (0..5000)
            .filter(|i| bloom.may_contain(PageId(i * 7 + 3)))
            .count();
        assert!(wrong < 150, "{wrong} of 5000");
    }
}
