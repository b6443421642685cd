//! The lock table against a model that is too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::table::{Asked, LockName, LockTable, Place, TxnId};

fn name(place: Place) -> LockName {
    LockName {
        table: "t".into(),
        key: format!("({place})"),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask { txn: u64, place: Place, waits: bool },
    Leave { txn: u64 },
    Release { txn: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..6u64, 0..5u64, prop::bool::weighted(0.8))
            .prop_map(|(txn, place, waits)| Step::Ask { txn, place, waits }),
        1 => (0..6u64).prop_map(|txn| Step::Leave { txn }),
        2 => (0..6u64).prop_map(|txn| Step::Release { txn }),
    ];
    prop::collection::vec(step, 1..80)
}

/// Each lock is the list of those who asked for it, in their order; the first has it.
#[derive(Default)]
struct Model(BTreeMap<Place, Vec<u64>>);

impl Model {
    fn waits_for(&self, txn: u64) -> Option<Place> {
        self.0
            .iter()
            .find(|(_, line)| line.iter().skip(1).any(|other| *other == txn))
            .map(|(place, _)| *place)
    }

    /// Everybody whom `txn` has to wait for, directly or not: all who stand before it, and whom those wait for.
    fn before(&self, txn: u64, found: &mut BTreeSet<u64>) {
        for line in self.0.values() {
            if let Some(at) = line.iter().position(|other| *other == txn) {
                for other in &line[..at] {
                    if found.insert(*other) {
                        self.before(*other, found);
                    }
                }
            }
        }
    }

    fn would_close_a_circle(&self, txn: u64, place: Place) -> bool {
        self.0[&place].iter().any(|other| {
            let mut found = BTreeSet::from([*other]);
            self.before(*other, &mut found);
            found.contains(&txn)
        })
    }

    fn take_out(&mut self, txn: u64, holder_too: bool) -> Vec<u64> {
        let mut granted = Vec::new();
        for line in self.0.values_mut() {
            let first = line.first().copied();
            let from = usize::from(!holder_too);
            let mut at = 0;
            line.retain(|other| {
                at += 1;
                *other != txn || at <= from
            });
            if line.first().copied() != first {
                granted.extend(line.first());
            }
        }
        self.0.retain(|_, line| !line.is_empty());
        granted
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_is_a_set_of_queues_without_circles(steps in steps()) {
        let (mut table, mut model) = (LockTable::default(), Model::default());
        for step in steps {
            match step {
                Step::Ask { txn, place, waits } => {
                    // A transaction waits for one lock at a time.
                    if model.waits_for(txn).is_some_and(|other| other != place) {
                        continue;
                    }
                    let named = || name(place);
                    let queue_as: Option<&dyn Fn() -> LockName> = waits.then_some(&named);
                    let got = table.ask(TxnId(txn), place, queue_as);
                    let line = model.0.get(&place).cloned().unwrap_or_default();
                    match line.first() {
                        None => {
                            prop_assert_eq!(got, Asked::Granted);
                            model.0.insert(place, vec![txn]);
                        }
                        Some(first) if *first == txn => prop_assert_eq!(got, Asked::Granted),
                        Some(first) if !waits => prop_assert_eq!(got, Asked::Busy(TxnId(*first))),
                        Some(_) if line.contains(&txn) => prop_assert_eq!(got, Asked::Queued),
                        Some(first) => {
                            if model.would_close_a_circle(txn, place) {
                                let Asked::Deadlock(circle) = got else {
                                    return Err(TestCaseError::fail(format!("{got:?}, expected a deadlock")));
                                };
                                prop_assert_eq!(circle[0].txn, TxnId(txn));
                                prop_assert_eq!(circle[0].holder, TxnId(*first));
                                for (edge, next) in circle.iter().zip(circle.iter().cycle().skip(1)) {
                                    prop_assert_eq!(edge.holder, next.txn);
                                    let place: Place = edge.lock.key.trim_matches(['(', ')']).parse().unwrap();
                                    prop_assert_eq!(model.0[&place][0], edge.holder.0);
                                }
                            } else {
                                prop_assert_eq!(got, Asked::Queued);
                                model.0.entry(place).or_default().push(txn);
                            }
                        }
                    }
                }
                Step::Leave { txn } => {
                    let waited = model.waits_for(txn);
                    let holder = waited.map(|place| TxnId(model.0[&place][0]));
                    let left = table.leave(TxnId(txn));
                    prop_assert_eq!(left, waited.map(name).zip(holder));
                    model.take_out(txn, false);
                }
                Step::Release { txn } => {
                    table.leave(TxnId(txn));
                    let mut granted = table.release(TxnId(txn), 0..5);
                    let mut expected: Vec<TxnId> = model.take_out(txn, true).into_iter().map(TxnId).collect();
                    granted.sort();
                    expected.sort();
                    prop_assert_eq!(granted, expected);
                }
            }
            prop_assert_eq!(table.len(), model.0.len());
            for txn in 0..6 {
                prop_assert_eq!(table.is_waiting(TxnId(txn)), model.waits_for(txn).is_some());
                for place in 0..5 {
                    let holds = model.0.get(&place).is_some_and(|line| line[0] == txn);
                    prop_assert_eq!(table.holds(TxnId(txn), place), holds);
                }
            }
        }
    }
}

#[test]
fn a_circle_of_three_names_each_edge() {
    let mut table = LockTable::default();
    for txn in 1..=3 {
        assert_eq!(table.ask(TxnId(txn), txn, None), Asked::Granted);
    }
    assert_eq!(table.ask(TxnId(1), 2, Some(&|| name(2))), Asked::Queued);
    assert_eq!(table.ask(TxnId(2), 3, Some(&|| name(3))), Asked::Queued);
    let Asked::Deadlock(circle) = table.ask(TxnId(3), 1, Some(&|| name(1))) else {
        panic!("expected a deadlock");
    };
    let text: Vec<String> = circle.iter().map(ToString::to_string).collect();
    assert_eq!(
        text.join("; "),
        "transaction 3 waits for table \"t\", key (1), which transaction 1 holds; \
         transaction 1 waits for table \"t\", key (2), which transaction 2 holds; \
         transaction 2 waits for table \"t\", key (3), which transaction 3 holds"
    );
}
