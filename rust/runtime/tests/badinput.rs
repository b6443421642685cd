//! What is not a cluster, not this cluster, or not all of it: each has an error of its own, and nothing is made worse.

mod common;

use std::fs;
use std::path::Path;

use aurora_runtime::{Cluster, Error, NodePlacement, NodeState, OpenOptions};
use common::{TempDir, accounts, balance, node_dir, put, small, states};

fn filled(dir: &TempDir) {
    let cluster = Cluster::open(small(dir)).unwrap();
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 11)]).unwrap();
    cluster.close().unwrap();
}

fn error_of(options: OpenOptions) -> Error {
    match Cluster::open(options) {
        Ok(_) => panic!("expected an error, got a cluster"),
        Err(error) => error,
    }
}

/// Everything below a directory: names and contents.
fn listing(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.push((path.clone(), Vec::new()));
            found.extend(listing(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// The files of the manifest's versions, in all places.
fn manifests(dir: &TempDir) -> Vec<std::path::PathBuf> {
    let all = listing(&dir.0).into_iter().map(|(path, _)| path);
    all.filter(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("manifest-"))
    })
    .collect()
}

#[test]
fn a_place_that_is_no_cluster_is_named_and_left_alone() {
    let dir = TempDir::new();
    let not_a_cluster = |options, what: &str| match error_of(options) {
        Error::NotACluster { got, .. } => assert!(got.contains(what), "{got}"),
        other => panic!("expected NotACluster, got {other}"),
    };
    let missing = OpenOptions {
        create: false,
        ..small(&dir)
    };
    not_a_cluster(missing.clone(), "nothing");
    not_a_cluster(
        OpenOptions {
            read_only: true,
            ..small(&dir)
        },
        "nothing",
    );
    assert!(!dir.0.exists());
    fs::create_dir_all(&dir.0).unwrap();
    not_a_cluster(missing, "an empty directory");
    fs::write(dir.0.join("letters.txt"), "dear").unwrap();
    let before = listing(&dir.0);
    not_a_cluster(small(&dir), "letters.txt");
    not_a_cluster(OpenOptions::at(dir.0.join("letters.txt")), "a file");
    assert_eq!(
        listing(&dir.0),
        before,
        "not even a lock file is left behind"
    );
}

#[test]
fn a_file_that_only_has_the_name_of_a_manifest_is_no_cluster() {
    let dir = TempDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    fs::write(dir.0.join("manifest-00000000000000000001"), "version 1\n").unwrap();
    match error_of(small(&dir)) {
        Error::NotACluster { .. } | Error::Corrupt { .. } => {}
        other => panic!("expected NotACluster or Corrupt, got {other}"),
    }
}

#[test]
fn a_manifest_damaged_in_every_place_is_corrupt_and_in_three_is_healed() {
    let dir = TempDir::new();
    filled(&dir);
    let files = manifests(&dir);
    let kept: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    for damage in ["flip", "cut"] {
        for path in &files {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            if damage == "flip" {
                bytes[middle] ^= 0x10;
            } else {
                bytes.truncate(middle);
            }
            fs::write(path, bytes).unwrap();
        }
        match error_of(small(&dir)) {
            Error::Corrupt { detail } => assert!(detail.contains("manifest"), "{detail}"),
            other => panic!("expected Corrupt, got {other}"),
        }
        files
            .iter()
            .zip(&kept)
            .for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }
    for path in files.iter().filter(|path| {
        path.starts_with(dir.0.join("az1")) || path.starts_with(dir.0.join("az2/node3"))
    }) {
        fs::write(path, "?").unwrap();
    }
    let cluster = Cluster::open(small(&dir)).unwrap();
    assert_eq!(balance(&cluster, &accounts(&cluster), 1).unwrap(), Some(11));
    assert_eq!(states(&cluster), [NodeState::Healthy; 6]);
}

#[test]
fn a_newer_format_is_refused_with_both_numbers() {
    let dir = TempDir::new();
    filled(&dir);
    // The header: magic 8, format 4, length 4, checksum of the body 4, checksum of the header 4.
    for path in manifests(&dir) {
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 200;
        let checksum = aurora_page::crc32c(&bytes[..20]);
        bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
        fs::write(&path, bytes).unwrap();
    }
    let before = listing(&dir.0);
    match error_of(small(&dir)) {
        Error::NewerFormat { got, expected, .. } => {
            assert!(got > expected, "expected {expected}, got {got}")
        }
        other => panic!("expected NewerFormat, got {other}"),
    }
    assert_eq!(listing(&dir.0), before);
}

#[test]
fn options_that_contradict_the_cluster_are_named() {
    let dir = TempDir::new();
    let made = OpenOptions {
        region: Some("eu-central-1".into()),
        ..small(&dir)
    };
    drop(Cluster::open(made.clone()).unwrap());
    let refused = |options, name: &str| match error_of(options) {
        Error::InvalidOption {
            option,
            expected,
            got,
        } => {
            assert_eq!(option, name);
            assert_ne!(expected, got);
        }
        other => panic!("expected InvalidOption, got {other}"),
    };
    refused(
        OpenOptions {
            region: Some("us-east-1".into()),
            ..made.clone()
        },
        "region",
    );
    refused(
        OpenOptions {
            page_bytes: Some(16 << 10),
            ..made.clone()
        },
        "page_bytes",
    );
    refused(
        OpenOptions {
            segment_bytes: Some(8 << 20),
            ..made.clone()
        },
        "segment_bytes",
    );
    drop(
        Cluster::open(OpenOptions {
            region: None,
            ..made
        })
        .unwrap(),
    );
}

#[test]
fn a_closed_cluster_opens_for_reading_by_several_and_without_a_trace() {
    let dir = TempDir::new();
    filled(&dir);
    // Remains that an owner would clear away.
    fs::write(node_dir(&dir, 2).join("layers/.unfinished"), "x").unwrap();
    let before = listing(&dir.0);
    let reading = OpenOptions {
        read_only: true,
        ..small(&dir)
    };
    let one = Cluster::open(reading.clone()).unwrap();
    let two = Cluster::open(reading).unwrap();
    for cluster in [&one, &two] {
        let table = cluster
            .run(&common::never, |engine| {
                engine.table("accounts", cluster.vdl())
            })
            .unwrap()
            .unwrap();
        assert_eq!(balance(cluster, &table, 1).unwrap(), Some(11));
        assert!(matches!(
            put(cluster, &table, &[(2, 2)]),
            Err(Error::ReadOnly { .. })
        ));
        assert!(matches!(cluster.repair_now(), Err(Error::ReadOnly { .. })));
        assert!(matches!(cluster.flush_now(), Err(Error::ReadOnly { .. })));
        assert!(
            cluster.status().state.starts_with("read-only"),
            "{}",
            cluster.status().state
        );
    }
    match error_of(small(&dir)) {
        Error::AlreadyOpen { .. } => {}
        other => panic!("expected AlreadyOpen while it is read, got {other}"),
    }
    drop((one, two));
    assert_eq!(listing(&dir.0), before);
    let cluster = Cluster::open(small(&dir)).unwrap();
    assert_eq!(balance(&cluster, &accounts(&cluster), 1).unwrap(), Some(11));
}

#[test]
fn a_live_cluster_is_not_opened_for_reading_beside_its_owner() {
    let dir = TempDir::new();
    let owner = Cluster::open(small(&dir)).unwrap();
    match error_of(OpenOptions {
        read_only: true,
        ..small(&dir)
    }) {
        Error::AlreadyOpen { pid, .. } => assert_eq!(pid, Some(std::process::id())),
        other => panic!("expected AlreadyOpen, got {other}"),
    }
    // Not even with takeover: it would end the process that asks.
    assert!(matches!(
        error_of(OpenOptions {
            takeover: true,
            ..small(&dir)
        }),
        Error::AlreadyOpen { .. }
    ));
    put(&owner, &accounts(&owner), &[(1, 1)]).unwrap();
}

/// Another process holds the directory: a takeover ends it, and has everything that it was told was durable.
#[test]
fn a_takeover_ends_the_owner_and_has_its_commits() {
    let dir = TempDir::new();
    if let Ok(path) = std::env::var("AURORA_TEST_OWNER") {
        let cluster = Cluster::open(OpenOptions {
            segment_bytes: Some(4 << 20),
            ..OpenOptions::at(&path)
        })
        .unwrap();
        let table = accounts(&cluster);
        for id in 0.. {
            put(&cluster, &table, &[(id, id)]).unwrap();
            // In one step: the process may be ended in the midst of it.
            let (temp, told) = (
                Path::new(&path).with_extension("new"),
                Path::new(&path).with_extension("acknowledged"),
            );
            fs::write(&temp, id.to_string()).unwrap();
            fs::rename(temp, told).unwrap();
        }
    }
    let acknowledged = dir.0.with_extension("acknowledged");
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_takeover_ends_the_owner_and_has_its_commits"])
        .env("AURORA_TEST_OWNER", &dir.0)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let read = || {
        fs::read_to_string(&acknowledged)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
    };
    common::eventually("the owner commits", || read().is_some_and(|id| id >= 3));
    match error_of(small(&dir)) {
        Error::AlreadyOpen { pid, .. } => assert_eq!(pid, Some(owner.id())),
        other => panic!("expected AlreadyOpen, got {other}"),
    }
    let cluster = Cluster::open(OpenOptions {
        takeover: true,
        ..small(&dir)
    })
    .unwrap();
    assert!(!owner.wait().unwrap().success(), "the owner was ended");
    let table = accounts(&cluster);
    for id in 0..=read().unwrap() {
        assert_eq!(balance(&cluster, &table, id).unwrap(), Some(id));
    }
    fs::remove_file(acknowledged).unwrap();
    let _ = fs::remove_file(dir.0.with_extension("new"));
}

#[test]
fn a_log_that_is_gone_is_missed_and_not_replaced() {
    let dir = TempDir::new();
    filled(&dir);
    let (log, away) = (dir.0.join("log"), dir.0.join("log-away"));
    fs::rename(&log, &away).unwrap();
    for _ in 0..2 {
        match error_of(small(&dir)) {
            Error::Corrupt { detail } => assert!(detail.contains("log"), "{detail}"),
            other => panic!("expected Corrupt, got {other}"),
        }
        assert!(!log.exists());
    }
    fs::rename(&away, &log).unwrap();
    let cluster = Cluster::open(small(&dir)).unwrap();
    assert_eq!(balance(&cluster, &accounts(&cluster), 1).unwrap(), Some(11));
}

/// Below a read quorum nothing can be said: the missing are named, nothing is changed, and when one is back all is well.
#[test]
fn too_few_directories_are_named_and_nothing_is_rebuilt() {
    for gone in [
        vec![0, 1, 2, 3],
        vec![0, 1, 2, 3, 4],
        vec![0, 1, 2, 3, 4, 5],
    ] {
        let dir = TempDir::new();
        filled(&dir);
        for &node in &gone {
            let from = node_dir(&dir, node);
            fs::rename(&from, dir.0.join(format!("away-{node}"))).unwrap();
        }
        for read_only in [false, true] {
            match error_of(OpenOptions {
                read_only,
                ..small(&dir)
            }) {
                Error::QuorumLost {
                    have,
                    of: 6,
                    missing,
                    hint,
                    ..
                } => {
                    assert_eq!(have, 6 - gone.len());
                    let names: Vec<_> = gone
                        .iter()
                        .map(|n| format!("az{}/node{}", n / 2 + 1, n + 1))
                        .collect();
                    assert_eq!(missing, names);
                    assert!(hint.contains("bring"), "{hint}");
                }
                other => panic!("expected QuorumLost, got {other}"),
            }
        }
        for &node in &gone {
            assert!(
                !node_dir(&dir, node).exists(),
                "node {node} was not made anew"
            );
        }
        for &node in &gone[..gone.len() - 3] {
            fs::rename(dir.0.join(format!("away-{node}")), node_dir(&dir, node)).unwrap();
        }
        let cluster = Cluster::open(small(&dir)).unwrap();
        assert_eq!(balance(&cluster, &accounts(&cluster), 1).unwrap(), Some(11));
        cluster.repair_now().unwrap();
        assert_eq!(states(&cluster), [NodeState::Healthy; 6]);
    }
}

/// Directories that were damaged are set aside and never overwritten, however often the cluster is opened.
#[test]
fn damaged_directories_are_kept_beside_the_rebuilt_ones() {
    let dir = TempDir::new();
    filled(&dir);
    for round in 1..=2 {
        let identity = node_dir(&dir, 0).join("identity");
        let mut bytes = fs::read(&identity).unwrap();
        bytes[20] ^= 1;
        fs::write(&identity, bytes).unwrap();
        let cluster = Cluster::open(small(&dir)).unwrap();
        cluster.repair_now().unwrap();
        assert_eq!(states(&cluster), [NodeState::Healthy; 6]);
        cluster.close().unwrap();
        for kept in 1..=round {
            assert!(dir.0.join(format!("az1/node1.damaged-{kept}")).exists());
        }
    }
    // Four at once are too many: they stay where they are for whoever can mend them.
    let before: Vec<_> = (0..4)
        .map(|node| node_dir(&dir, node).join("identity"))
        .collect();
    for identity in &before {
        let mut bytes = fs::read(identity).unwrap();
        bytes[20] ^= 1;
        fs::write(identity, bytes).unwrap();
    }
    for _ in 0..2 {
        assert!(matches!(
            error_of(small(&dir)),
            Error::QuorumLost { have: 2, .. }
        ));
    }
    for identity in &before {
        let mut bytes = fs::read(identity).unwrap();
        bytes[20] ^= 1;
        fs::write(identity, bytes).unwrap();
    }
    let cluster = Cluster::open(small(&dir)).unwrap();
    assert_eq!(balance(&cluster, &accounts(&cluster), 1).unwrap(), Some(11));
}

#[test]
fn nodes_are_made_in_empty_directories_only() {
    let dir = TempDir::new();
    let elsewhere = TempDir::new();
    fs::create_dir_all(elsewhere.0.join("n")).unwrap();
    fs::write(elsewhere.0.join("n/letters.txt"), "dear").unwrap();
    let place = |n: usize| NodePlacement {
        az: format!("az{}", n / 2),
        path: if n == 5 {
            elsewhere.0.join("n")
        } else {
            format!("n{n}").into()
        },
    };
    let options = OpenOptions {
        nodes: Some((0..6).map(place).collect()),
        ..small(&dir)
    };
    match error_of(options) {
        Error::NotACluster { path, .. } => assert_eq!(path, elsewhere.0.join("n")),
        other => panic!("expected NotACluster, got {other}"),
    }
    assert_eq!(
        fs::read(elsewhere.0.join("n/letters.txt")).unwrap(),
        b"dear"
    );
}
