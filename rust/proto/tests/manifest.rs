//! The manifest's bytes, its golden file, and its edits.

mod common;

use std::collections::BTreeMap;

use aurora_page::Lsn;
use aurora_proto::*;
use aurora_redo::PgId;
use common::*;
use proptest::prelude::*;

const GOLDEN: &[u8] = include_bytes!("golden/manifest-1.bin");

/// A manifest that uses every field.
fn rich() -> Manifest {
    let mut m = manifest(1000, 100).with_config("backup", "none");
    m = m.with_nodes((0..7).map(|id| node_info(id, u64::from(id) + 1)).collect());
    let moving = m.pgs[3].begin_replace(NodeId(5), NodeId(6)).unwrap();
    m = m.step_membership(PgId(3), moving).unwrap();
    m = m
        .recovering()
        .opened(Lsn(104), m.pgs.clone(), m.nodes.clone())
        .unwrap();
    m = m
        .backtracked(Lsn(100), Lsn(900), 77)
        .unwrap()
        .with_complete(vec![(NodeId(2), 3)]);
    m = m.with_snapshot("before", Lsn(90), 78).unwrap();
    m.with_floor(Lsn(50)).unwrap()
}

#[test]
fn the_golden_file() {
    assert_eq!(
        rich().encode(),
        GOLDEN,
        "the format changed: raise FORMAT and keep reading the old one"
    );
    assert_eq!(Manifest::decode(GOLDEN).unwrap(), rich());
}

#[test]
fn equal_memberships_are_stored_once() {
    let mut m = manifest(1, 100);
    m.pgs = vec![m.pgs[0].clone(); 100_000];
    assert!(m.encode().len() < 400);
}

#[test]
fn bytes_that_are_no_manifest() {
    let good = rich().encode();
    let decode = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Manifest::decode(&bytes).unwrap_err()
    };
    assert!(matches!(
        decode(&|b| b.clear()),
        ManifestError::Magic { .. }
    ));
    assert!(matches!(
        decode(&|b| b[0] = b'x'),
        ManifestError::Magic { .. }
    ));
    assert_eq!(
        decode(&|b| b.truncate(20)),
        ManifestError::Length {
            expected: 24,
            got: 20
        }
    );
    let (len, cut) = (good.len(), good.len() - 7);
    assert_eq!(
        decode(&|b| b.truncate(cut)),
        ManifestError::Length {
            expected: len,
            got: cut
        }
    );
    assert_eq!(
        decode(&|b| b.push(0)),
        ManifestError::Length {
            expected: len,
            got: len + 1
        }
    );
    assert!(matches!(
        decode(&|b| b[9] ^= 1),
        ManifestError::Crc { part: "header", .. }
    ));
    assert!(matches!(
        decode(&|b| b[cut] ^= 1),
        ManifestError::Crc { part: "body", .. }
    ));
    let newer = decode(&|b| {
        b[8] = 2;
        let crc = crc32c::crc32c(&b[..20]).to_le_bytes();
        b[20..24].copy_from_slice(&crc);
    });
    assert_eq!(
        newer,
        ManifestError::NewerFormat {
            expected: 1,
            got: 2
        }
    );
    assert_eq!(
        newer.to_string(),
        "the manifest has format 2, this version reads formats up to 1"
    );
}

#[test]
fn members_must_be_listed_nodes() {
    let mut m = manifest(1, 100);
    m.pgs[0] = Membership::new(1, [NodeId(0), NodeId(9)]);
    assert!(matches!(
        Manifest::decode(&m.encode()),
        Err(ManifestError::Field {
            field: "members",
            ..
        })
    ));
    m.nodes.push(node_info(0, 2));
    assert!(matches!(
        Manifest::decode(&m.encode()),
        Err(ManifestError::Field { field: "nodes", .. })
    ));
}

proptest! {
    #[test]
    fn flipped_bits_never_pass_and_never_panic(at in 0..GOLDEN.len(), bit in 0..8u8) {
        let mut bytes = GOLDEN.to_vec();
        bytes[at] ^= 1 << bit;
        prop_assert!(Manifest::decode(&bytes).is_err());
    }
}

#[test]
fn every_edit_is_a_new_version_and_wants_its_state() {
    let m = manifest(1, 100);
    assert_eq!((m.version, m.epoch, m.state), (1, 1, VolumeState::Open));
    assert!(matches!(
        m.opened(Lsn(1), vec![], vec![]),
        Err(EditError::State {
            expected: VolumeState::Recovering,
            ..
        })
    ));
    let r = m.recovering();
    assert_eq!(
        (r.version, r.epoch, r.state),
        (2, 2, VolumeState::Recovering)
    );
    assert!(matches!(
        r.add_segment(r.next_members()),
        Err(EditError::State { .. })
    ));
    assert!(matches!(r.closed(), Err(EditError::State { .. })));
    assert!(matches!(
        r.step_membership(PgId(1), r.next_members()),
        Err(EditError::NoSuchPg { count: 1, .. })
    ));
    let wrong = r.step_membership(PgId(0), r.next_members());
    assert!(matches!(
        wrong,
        Err(EditError::MembershipEpoch {
            expected: 2,
            got: 1,
            ..
        })
    ));
    assert_eq!(m.with_floor(Lsn::NONE), None);
    assert_eq!(m.closed().unwrap().state, VolumeState::Closed);
    assert_eq!(m.free_node_id(), Some(NodeId(6)));
    assert_eq!(m.node(NodeId(3)).unwrap().path, "az2/node4");
    assert_eq!(m.config, BTreeMap::new());
}

/// Walk-through 3: backtrack, and forward again.
#[test]
fn backtrack_and_forward_again() {
    let mut m = manifest(1, 100).recovering();
    m = m.opened(Lsn(104), m.pgs.clone(), m.nodes.clone()).unwrap();
    assert_eq!(m.history, history(&[(1, 104), (205, 0)]));
    assert!(matches!(
        m.backtracked(Lsn(150), Lsn(900), 10),
        Err(EditError::NotInHistory { .. })
    ));

    let back = m.backtracked(Lsn(600), Lsn(900), 10).unwrap();
    assert_eq!(
        (back.epoch, &back.history),
        (m.epoch + 1, &history(&[(1, 104), (205, 600), (1001, 0)]))
    );
    assert_eq!(back.abandoned[0].history, history(&[(1, 104), (205, 900)]));
    assert_eq!(
        (back.abandoned[0].since_us, back.abandoned[0].until_us),
        (1, 10)
    );

    let forth = back.forwarded(0, Lsn(850), Lsn(1020), 20).unwrap();
    assert_eq!(forth.history, history(&[(1, 104), (205, 850), (1121, 0)]));
    assert_eq!(
        forth.abandoned[1].history,
        history(&[(1, 104), (205, 600), (1001, 1020)])
    );
    assert_eq!(forth.histories().count(), 3);
    assert!(matches!(
        back.forwarded(7, Lsn(850), Lsn(1020), 20),
        Err(EditError::NotInHistory { .. })
    ));

    assert_eq!(forth.forgetting(10), None);
    assert_eq!(forth.forgetting(11).unwrap().abandoned.len(), 1);
    let floored = m.with_floor(Lsn(700)).unwrap();
    assert!(matches!(
        floored.backtracked(Lsn(600), Lsn(900), 10),
        Err(EditError::Collected {
            floor: Lsn(700),
            ..
        })
    ));
}

#[test]
#[ignore = "writes the golden file of a new format"]
#[expect(
    clippy::disallowed_methods,
    reason = "a tool for whoever raises the format, not a test"
)]
fn write_golden() {
    std::fs::write(
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/manifest-1.bin"),
        rich().encode(),
    )
    .unwrap();
}
