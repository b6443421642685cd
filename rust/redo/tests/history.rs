//! Walk-throughs of crash recovery, backtrack, clone and restore with small numbers: window 100, volumes A, B, C.

use aurora_page::{Lsn, VolumeId};
use aurora_redo::{History, Interval, RedoError};
use proptest::prelude::*;

const A: VolumeId = VolumeId(0xa);
const B: VolumeId = VolumeId(0xb);
const C: VolumeId = VolumeId(0xc);
const WINDOW: u64 = 100;

/// Reads the notation of the design documents: `a[1..104] a[205..)`.
fn history(text: &str) -> History {
    let intervals = text.split_whitespace().map(|part| {
        let (origin, range) = part.split_once('[').expect("origin[range");
        let (first, last) = range.split_once("..").expect("first..last");
        let number = |s: &str| Lsn(s.parse().expect("a number"));
        let last = if last == ")" {
            Lsn::MAX
        } else {
            number(last.trim_end_matches(']'))
        };
        Interval {
            origin: VolumeId(u64::from_str_radix(origin, 16).expect("hex")),
            first: number(first),
            last,
        }
    });
    History::from_intervals(intervals.collect()).expect("a valid History")
}

#[test]
fn text_form_is_the_one_of_the_documents() {
    for text in [
        "a[1..)",
        "a[1..104] a[205..)",
        "a[1..104] a[205..550] b[651..)",
        "",
    ] {
        assert_eq!(history(text).to_string(), text);
    }
    assert_eq!(History::new(A), history("a[1..)"));
}

/// One row: a History, what is done to it, and what must come out.
struct Branch {
    what: &'static str,
    from: &'static str,
    at: u64,
    past: u64,
    origin: VolumeId,
    gives: &'static str,
}

#[test]
fn branch_serves_recovery_backtrack_clone_and_restore() {
    let row = |what, from, at, past, origin, gives| Branch {
        what,
        from,
        at,
        past,
        origin,
        gives,
    };
    let rows = [
        row(
            "crash, VDL 104",
            "a[1..)",
            104,
            104,
            A,
            "a[1..104] a[205..)",
        ),
        row(
            "crash again, nothing written since",
            "a[1..104] a[205..)",
            104,
            104,
            A,
            "a[1..104] a[305..)",
        ),
        row(
            "crash of a volume without any record",
            "a[1..)",
            0,
            0,
            A,
            "a[101..)",
        ),
        row("and once more", "a[101..)", 0, 0, A, "a[201..)"),
        row(
            "backtrack to noon",
            "a[1..104] a[205..)",
            600,
            900,
            A,
            "a[1..104] a[205..600] a[1001..)",
        ),
        row(
            "forward again",
            "a[1..104] a[205..900]",
            850,
            1020,
            A,
            "a[1..104] a[205..850] a[1121..)",
        ),
        row(
            "backtrack before an old branch",
            "a[1..104] a[205..)",
            50,
            900,
            A,
            "a[1..50] a[1001..)",
        ),
        row(
            "backtrack to a gap is to the end before it",
            "a[1..104] a[205..)",
            150,
            900,
            A,
            "a[1..104] a[1001..)",
        ),
        row(
            "clone",
            "a[1..104] a[205..)",
            550,
            550,
            B,
            "a[1..104] a[205..550] b[651..)",
        ),
        row(
            "clone of the clone",
            "a[1..550] b[651..)",
            700,
            700,
            C,
            "a[1..550] b[651..700] c[801..)",
        ),
        row(
            "clone of the past of a branched volume",
            "a[1..104] a[205..)",
            50,
            50,
            B,
            "a[1..50] b[151..)",
        ),
    ];
    for Branch {
        what,
        from,
        at,
        past,
        origin,
        gives,
    } in rows
    {
        let got = history(from).branch_past(Lsn(at), Lsn(past), origin, WINDOW);
        assert_eq!(got.to_string(), gives, "{what}");
        if at == past {
            assert_eq!(history(from).branch(Lsn(at), origin, WINDOW), got, "{what}");
        }
    }
}

#[test]
fn what_a_returning_copy_brings_back_does_not_count() {
    let before = History::new(A);
    let after = before.branch(Lsn(104), A, WINDOW);
    for dropped in [105, 106, 204] {
        assert!(before.contains(A, Lsn(dropped)) && !after.contains(A, Lsn(dropped)));
    }
    assert!(after.contains(A, Lsn(104)) && after.contains(A, Lsn(205)));
    assert!(!after.contains(B, Lsn(205)));
    assert_eq!(after.first_new_lsn(), Lsn(205));
}

#[test]
fn images_are_valid_where_their_lsn_happened() {
    let now = history("a[1..104] a[205..600] a[1001..)");
    let abandoned = history("a[1..104] a[205..900]");
    assert!(!now.contains(A, Lsn(800)) && abandoned.contains(A, Lsn(800)));
    assert!(now.contains(A, Lsn(550)) && abandoned.contains(A, Lsn(550)));
}

#[test]
fn one_lsn_of_two_volumes_is_two_records() {
    let clone = history("a[1..104] a[205..550] b[651..)");
    assert_eq!(clone.origin_of(Lsn(1200)), Some(B));
    assert!(clone.contains(B, Lsn(1200)) && !clone.contains(A, Lsn(1200)));
    assert_eq!(clone.origin_of(Lsn(600)), None);
}

#[test]
fn neighbours_skip_the_gaps() {
    let h = history("a[1..104] a[205..600] b[1001..)");
    let next = [
        (0, 1),
        (1, 2),
        (103, 104),
        (104, 205),
        (150, 205),
        (204, 205),
        (600, 1001),
        (2000, 2001),
    ];
    for (lsn, expected) in next {
        assert_eq!(h.next_after(Lsn(lsn)), Some(Lsn(expected)), "after {lsn}");
    }
    let floors = [
        (0, 0),
        (1, 1),
        (104, 104),
        (150, 104),
        (205, 205),
        (700, 600),
        (5000, 5000),
    ];
    for (lsn, expected) in floors {
        assert_eq!(h.floor(Lsn(lsn)), Lsn(expected), "floor of {lsn}");
    }
    assert_eq!(h.clip(Lsn(300)).next_after(Lsn(300)), None);
}

#[test]
fn histories_agree_up_to_where_they_part() {
    let rows = [
        (
            "a[1..104] a[205..900]",
            "a[1..104] a[205..600] a[1001..)",
            600,
        ),
        ("a[1..)", "a[1..104] a[205..)", 104),
        ("a[1..104] a[205..)", "a[1..104] a[305..)", 204),
        ("a[1..104] a[205..)", "a[1..104]", 204),
        ("a[1..104] a[205..)", "a[1..104] b[205..)", 204),
        ("a[1..104]", "", 0),
    ];
    for (a, b, expected) in rows {
        assert_eq!(
            history(a).common_prefix(&history(b)),
            Lsn(expected),
            "{a} and {b}"
        );
        assert_eq!(
            history(b).common_prefix(&history(a)),
            Lsn(expected),
            "{b} and {a}"
        );
        assert_eq!(history(a).common_prefix(&history(a)), Lsn::MAX);
    }
    assert!(history("a[1..104] a[205..)").includes(&history("a[1..50] a[205..600]")));
    assert!(!history("a[1..104] a[205..)").includes(&history("a[1..204]")));
}

#[test]
fn impossible_histories_are_refused() {
    let one = |first, last| Interval {
        origin: A,
        first: Lsn(first),
        last: Lsn(last),
    };
    for intervals in [
        vec![one(0, 5)],
        vec![one(5, 4)],
        vec![one(1, 5), one(5, 9)],
        vec![one(1, u64::MAX), one(7, 9)],
    ] {
        let refused = History::from_intervals(intervals.clone());
        assert!(
            matches!(refused, Err(RedoError::Order { .. })),
            "{intervals:?}: {refused:?}"
        );
    }
}

fn any_history() -> impl Strategy<Value = History> {
    let step = (0u64..3, 1u64..1000, 1u64..1000);
    (prop::collection::vec(step, 0..6), any::<bool>()).prop_map(|(steps, open)| {
        let mut at = 0;
        let mut intervals: Vec<Interval> = Vec::new();
        for (origin, gap, len) in steps {
            let first = at + gap;
            at = first + len - 1;
            intervals.push(Interval {
                origin: VolumeId(origin),
                first: Lsn(first),
                last: Lsn(at),
            });
        }
        if let (true, Some(last)) = (open, intervals.last_mut()) {
            last.last = Lsn::MAX;
        }
        History::from_intervals(intervals).expect("ascending")
    })
}

proptest! {
    #[test]
    fn bytes_come_back(h in any_history()) {
        prop_assert_eq!(History::decode(&h.encode()).expect("own bytes"), h);
    }

    #[test]
    fn bad_bytes_are_errors(h in any_history(), cut in 0usize..60, flip in (0usize..60, 1u8..)) {
        let mut bytes = h.encode();
        bytes.truncate(cut);
        if let Some(byte) = bytes.get_mut(flip.0) {
            *byte ^= flip.1;
        }
        if let Ok(read) = History::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes, "one History has one form");
        }
    }

    #[test]
    fn random_bytes_are_errors(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(read) = History::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }

    /// What was ever given out is never given out again [3].
    #[test]
    fn branching_keeps_the_past_and_never_reuses(h in any_history(), at in 0u64..4000, written in 0u64..100) {
        let vdl = h.floor(Lsn(at));
        let given = Lsn(vdl.0.max(h.first_new_lsn().0 - 1) + written);
        let next = h.branch_past(vdl, vdl, h.intervals().last().map_or(A, |i| i.origin), WINDOW);
        prop_assert!(next.first_new_lsn() > given);
        prop_assert!(next.common_prefix(&h) >= vdl);
        prop_assert_eq!(next.clip(vdl), h.clip(vdl));
        prop_assert!(next.includes(&h.clip(vdl)));
    }

    #[test]
    fn agreement_is_exactly_up_to_the_common_prefix(a in any_history(), b in any_history()) {
        let prefix = a.common_prefix(&b);
        prop_assert_eq!(prefix, b.common_prefix(&a));
        for lsn in (1..200).chain([prefix.0, prefix.0.saturating_sub(1)]).map(Lsn) {
            if lsn <= prefix {
                prop_assert_eq!(a.origin_of(lsn), b.origin_of(lsn));
            }
        }
        if prefix < Lsn::MAX {
            prop_assert_ne!(a.origin_of(prefix.next()), b.origin_of(prefix.next()));
        }
    }
}
