//! An inner page against a `Vec` of separators, and its search against a `BTreeMap`.

use std::collections::BTreeMap;

use aurora_page::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>, u64),
    Remove(prop::sample::Index),
    Truncate(prop::sample::Index),
    SetChild(prop::sample::Index, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop_oneof![
        3 => prop::collection::vec(0u8..4, 0..12),
        1 => prop::collection::vec(any::<u8>(), 0..120),
    ];
    let index = any::<prop::sample::Index>;
    prop_oneof![
        12 => (key, any::<u64>()).prop_map(|(key, child)| Step::Insert(key, child)),
        4 => index().prop_map(Step::Remove),
        1 => index().prop_map(Step::Truncate),
        2 => (index(), any::<u64>()).prop_map(|(pos, child)| Step::SetChild(pos, child)),
    ]
}

/// Separators with the child to the right, and the leftmost child under the empty key, which nothing is below.
struct Model {
    leftmost: u64,
    entries: Vec<(Vec<u8>, u64)>,
}

impl Model {
    fn run(&mut self, page: &mut Page, step: Step) {
        let before = page.clone();
        let mut inner = InnerMut::new(page).unwrap();
        match step {
            Step::Insert(key, child) => {
                let Err(pos) = self.entries.binary_search_by(|entry| entry.0.cmp(&key)) else {
                    return;
                };
                let live: usize = self.entries.iter().map(|(key, _)| key.len() + 12).sum();
                let fits = live + 12 + key.len() <= inner.view().capacity_bytes();
                assert_eq!(inner.view().fits(key.len()), fits);
                let result = inner.insert(pos, &key, PageId(child));
                assert_eq!(result.is_ok(), fits, "{result:?}");
                if fits {
                    self.entries.insert(pos, (key, child));
                } else {
                    assert!(
                        *page == before,
                        "a change that fails leaves the page as it was"
                    );
                }
            }
            Step::Remove(pos) if self.entries.is_empty() => {
                assert!(inner.remove(pos.index(3)).is_err());
            }
            Step::Remove(pos) => {
                let pos = pos.index(self.entries.len());
                inner.remove(pos).unwrap();
                self.entries.remove(pos);
            }
            Step::Truncate(pos) => {
                let pos = pos.index(self.entries.len() + 1);
                inner.truncate(pos).unwrap();
                self.entries.truncate(pos);
            }
            Step::SetChild(pos, child) => {
                let pos = pos.index(self.entries.len() + 1);
                inner.set_child(pos, PageId(child)).unwrap();
                match pos.checked_sub(1) {
                    None => self.leftmost = child,
                    Some(entry) => self.entries[entry].1 = child,
                }
            }
        }
    }

    fn compare(&self, page: &Page) {
        let inner = InnerRef::new(page).unwrap();
        inner.verify().unwrap();
        let entries: Vec<_> = inner
            .entries()
            .map(|(key, child)| (key.to_vec(), child.0))
            .collect();
        assert_eq!(entries, self.entries);
        assert_eq!(inner.child(0), PageId(self.leftmost));
        let map: BTreeMap<&[u8], u64> = self
            .entries
            .iter()
            .map(|(key, child)| (key.as_slice(), *child))
            .collect();
        let mut probes: Vec<Vec<u8>> = self.entries.iter().map(|(key, _)| key.clone()).collect();
        probes.extend(
            self.entries
                .iter()
                .map(|(key, _)| [key.as_slice(), &[0]].concat()),
        );
        probes.extend([vec![], vec![2], vec![255; 3]]);
        for probe in probes {
            let (pos, child) = inner.child_for(&probe);
            let expected = map
                .range(..=probe.as_slice())
                .next_back()
                .map_or(self.leftmost, |(_, child)| *child);
            assert_eq!(child, PageId(expected));
            assert_eq!(pos, map.range(..=probe.as_slice()).count());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn random_steps(steps in prop::collection::vec(step(), 1..150)) {
        let mut page = Page::empty(PageId(8), 1024);
        format_inner(&mut page, ObjectId(2), 1, PageId(77));
        let mut model = Model { leftmost: 77, entries: Vec::new() };
        for step in steps {
            model.run(&mut page, step);
        }
        model.compare(&page);
        model.compare(&Page::from_disk(page.to_disk(), PageId(8)).unwrap());
    }
}

#[test]
fn append_is_all_or_nothing() {
    let mut page = Page::empty(PageId(8), 1024);
    format_inner(&mut page, ObjectId(2), 3, PageId(1));
    let keys: Vec<Vec<u8>> = (0u8..9).map(|n| vec![n; 100]).collect();
    let mut inner = InnerMut::new(&mut page).unwrap();
    let entries = |end: usize| {
        keys[..end]
            .iter()
            .map(|key| (key.as_slice(), PageId(key[0].into())))
    };
    inner.append(entries(8)).unwrap();
    assert_eq!((inner.view().len(), inner.view().level()), (8, 3));
    inner.truncate(2).unwrap();
    assert!(inner.view().is_underfull());
    assert!(inner.append(entries(9).skip(2)).is_err());
    assert_eq!(inner.view().len(), 2);
    let error = inner.set_child(3, PageId(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "page 8: expected a position up to 2, got 3"
    );
}
