//! Backups into an object store that is well, refuses, is full, loses answers and lies; and what is restored from them.

#[path = "common/mod.rs"]
mod common;
#[path = "common/objects.rs"]
mod objects;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aurora_page::Lsn;
use aurora_runtime::{BackupKey, BackupOptions, Cluster, Error, OpenOptions, RestoreAt, Target};

use common::{TempDir, accounts, balance, never, put, small};
use objects::{Fault, Mood, Objects};

const LIMIT: Duration = Duration::from_secs(60);

fn at(objects: &Arc<Objects>) -> BackupOptions {
    BackupOptions {
        place: Some(objects.clone()),
        delete_after: Duration::ZERO,
        ..BackupOptions::new("/objects")
    }
}

fn backed_up(dir: &TempDir, objects: &Arc<Objects>) -> Cluster {
    let options = OpenOptions {
        backup: Some(at(objects)),
        ..small(dir)
    };
    Cluster::open(options).unwrap()
}

fn restore(objects: &Arc<Objects>, to: &RestoreAt) -> Cluster {
    Cluster::restore(OpenOptions::memory(), &at(objects), to)
        .unwrap()
        .0
}

fn wait(cluster: &Cluster) {
    cluster.backup_wait(None, LIMIT, &never).unwrap();
}

#[test]
fn what_was_committed_comes_back_without_the_cluster() {
    let (dir, objects) = (TempDir::new(), Arc::new(Objects::default()));
    let cluster = backed_up(&dir, &objects);
    let table = accounts(&cluster);
    let mut lsns = Vec::new();
    for n in 0..20 {
        lsns.push(put(&cluster, &table, &[(n % 7, n)]).unwrap().lsn);
        if n == 9 {
            wait(&cluster);
        }
    }
    wait(&cluster);
    cluster.close().unwrap();
    std::fs::remove_dir_all(&dir.0).unwrap();

    let target = TempDir::new();
    let (restored, plan) =
        Cluster::restore(small_of(&target), &at(&objects), &RestoreAt::Latest).unwrap();
    assert_eq!(plan.lsn, lsns[19]);
    let table = accounts(&restored);
    for id in 0..7 {
        let last = (0..20).filter(|n| n % 7 == id).max();
        assert_eq!(balance(&restored, &table, id).unwrap(), last);
    }
    put(&restored, &table, &[(1, 100)]).unwrap();
    restored.close().unwrap();
    let restored = Cluster::open(small_of(&target)).unwrap();
    let table = accounts(&restored);
    assert_eq!(
        balance(&restored, &table, 1).unwrap(),
        Some(100),
        "it is a cluster like any other"
    );
    assert_eq!(balance(&restored, &table, 2).unwrap(), Some(16));

    for n in [0, 9, 10, 18] {
        let then = restore(&objects, &RestoreAt::Lsn(lsns[n]));
        let table = accounts(&then);
        let id = n as i64 % 7;
        assert_eq!(
            balance(&then, &table, id).unwrap(),
            Some(n as i64),
            "commit {n}"
        );
        let next = (n as i64 + 1) % 7;
        let before = (0..=n as i64).filter(|n| n % 7 == next).max();
        assert_eq!(
            balance(&then, &table, next).unwrap(),
            before,
            "nothing of commit {}",
            n + 1
        );
    }
}

fn small_of(dir: &TempDir) -> OpenOptions {
    OpenOptions::at(&dir.0)
}

#[test]
fn a_store_that_refuses_delays_and_touches_no_commit() {
    for fault in [Fault::Full, Fault::Denied, Fault::Unreachable] {
        let (dir, objects) = (TempDir::new(), Arc::new(Objects::default()));
        objects.be(Mood::Refuses(fault));
        let cluster = backed_up(&dir, &objects);
        let table = accounts(&cluster);
        put(&cluster, &table, &[(1, 1)]).unwrap();
        let refused = cluster.backup_wait(None, Duration::from_millis(300), &never);
        assert!(matches!(refused, Err(Error::Backup { .. })), "{refused:?}");
        until(|| cluster.backup_status().unwrap().state == "failing");
        let status = cluster.backup_status().unwrap();
        assert!(status.last_error.is_some() && status.restorable.is_none());
        assert!(
            cluster
                .events()
                .iter()
                .any(|event| event.what == "backup failed")
        );
        objects.be(Mood::Well);
        put(&cluster, &table, &[(1, 2)]).unwrap();
        wait(&cluster);
        assert_eq!(cluster.backup_status().unwrap().last_error, None);
        let restored = restore(&objects, &RestoreAt::Latest);
        assert_eq!(
            balance(&restored, &accounts(&restored), 1).unwrap(),
            Some(2)
        );
    }
}

fn until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LIMIT, "it does not come");
        std::thread::yield_now();
    }
}

#[test]
fn lost_answers_are_looked_up() {
    let (dir, objects) = (TempDir::new(), Arc::new(Objects::default()));
    let cluster = backed_up(&dir, &objects);
    let table = accounts(&cluster);
    wait(&cluster);
    objects.be(Mood::LosesAnswers);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    until(|| cluster.backup_status().unwrap().state == "failing");
    objects.be(Mood::Well);
    wait(&cluster);
    put(&cluster, &table, &[(1, 2)]).unwrap();
    wait(&cluster);
    let restored = restore(&objects, &RestoreAt::Latest);
    assert_eq!(
        balance(&restored, &accounts(&restored), 1).unwrap(),
        Some(2)
    );
}

#[test]
fn an_upload_that_stops_anywhere_goes_on_at_the_next_opening() {
    for writes in 0..8 {
        let (dir, objects) = (TempDir::new(), Arc::new(Objects::default()));
        objects.refuse_after(writes);
        let cluster = backed_up(&dir, &objects);
        let table = accounts(&cluster);
        put(&cluster, &table, &[(1, 7)]).unwrap();
        let _ = cluster.backup_wait(None, Duration::from_millis(200), &never);
        cluster.close().unwrap();
        objects.be(Mood::Well);
        let cluster = backed_up(&dir, &objects);
        let table = accounts(&cluster);
        put(&cluster, &table, &[(2, 8)]).unwrap();
        wait(&cluster);
        cluster.close().unwrap();
        let restored = restore(&objects, &RestoreAt::Latest);
        let table = accounts(&restored);
        assert_eq!(
            balance(&restored, &table, 1).unwrap(),
            Some(7),
            "after {writes} writes"
        );
        assert_eq!(
            balance(&restored, &table, 2).unwrap(),
            Some(8),
            "after {writes} writes"
        );
    }
}

#[test]
fn backtracks_and_snapshots_come_back() {
    let (dir, objects) = (TempDir::new(), Arc::new(Objects::default()));
    let cluster = backed_up(&dir, &objects);
    let table = accounts(&cluster);
    let first = put(&cluster, &table, &[(1, 1)]).unwrap();
    cluster.snapshot("one").unwrap();
    let second = put(&cluster, &table, &[(1, 2)]).unwrap();
    wait(&cluster);
    cluster
        .backtrack(&Target::Lsn(first.lsn), false, &never)
        .unwrap();
    let third = put(&cluster, &table, &[(2, 3)]).unwrap();
    wait(&cluster);
    cluster.close().unwrap();
    let read = |to: RestoreAt| {
        let restored = restore(&objects, &to);
        let table = accounts(&restored);
        [1, 2].map(|id| balance(&restored, &table, id).unwrap())
    };
    assert_eq!(read(RestoreAt::Latest), [Some(1), Some(3)]);
    assert_eq!(
        read(RestoreAt::Lsn(second.lsn)),
        [Some(2), None],
        "what a backtrack left"
    );
    assert_eq!(read(RestoreAt::Lsn(third.lsn)), [Some(1), Some(3)]);
    assert_eq!(read(RestoreAt::Snapshot("one".into())), [Some(1), None]);
    let unknown = Cluster::restore(
        OpenOptions::memory(),
        &at(&objects),
        &RestoreAt::Snapshot("two".into()),
    );
    assert!(matches!(unknown, Err(Error::UnknownSnapshot { .. })));
    let early = Cluster::restore(OpenOptions::memory(), &at(&objects), &RestoreAt::Time(5));
    assert!(matches!(early, Err(Error::OutsideWindow { .. })));
}

#[test]
fn every_object_that_is_changed_or_missing_is_named() {
    let (dir, objects) = (TempDir::new(), Arc::new(Objects::default()));
    let cluster = backed_up(&dir, &objects);
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    wait(&cluster);
    cluster.close().unwrap();
    let plan = Cluster::explain_restore(&at(&objects), &RestoreAt::Latest).unwrap();
    let names: Vec<String> = plan
        .objects
        .iter()
        .map(|object| object.name.clone())
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("base/"))
            && names.iter().any(|name| name.starts_with("log/"))
    );
    for name in names {
        let sound = objects.objects.lock().unwrap().get(&name).cloned().unwrap();
        for at_byte in (0..sound.len()).step_by(7) {
            let mut changed = sound.clone();
            changed[at_byte] ^= 1;
            objects
                .objects
                .lock()
                .unwrap()
                .insert(name.clone(), changed);
            named(&objects, &name);
        }
        objects.objects.lock().unwrap().remove(&name);
        named(&objects, &name);
        objects.objects.lock().unwrap().insert(name, sound);
    }
    restore(&objects, &RestoreAt::Latest);
}

fn named(objects: &Arc<Objects>, name: &str) {
    match Cluster::restore(OpenOptions::memory(), &at(objects), &RestoreAt::Latest) {
        Err(Error::Backup { detail, .. }) => assert!(detail.contains(name), "{name}: {detail}"),
        Err(other) => panic!("{name}: {other}"),
        Ok(_) => panic!("{name} was not missed"),
    }
}

#[test]
fn an_encrypted_backup_opens_with_its_key_only() {
    let (dir, objects) = (TempDir::new(), Arc::new(Objects::default()));
    let keyed = |byte| BackupOptions {
        key: Some(BackupKey::new(&[byte; 32]).unwrap()),
        ..at(&objects)
    };
    let open = |backup| {
        Cluster::open(OpenOptions {
            backup: Some(backup),
            ..small(&dir)
        })
        .unwrap()
    };
    let cluster = open(keyed(1));
    let table = accounts(&cluster);
    put(&cluster, &table, &[(1, 1)]).unwrap();
    wait(&cluster);
    cluster.close().unwrap();
    let text = b"owner 1";
    for (name, object) in objects.objects.lock().unwrap().iter() {
        assert!(
            !object.windows(text.len()).any(|part| part == text),
            "{name}"
        );
    }
    let restored = Cluster::restore(OpenOptions::memory(), &keyed(1), &RestoreAt::Latest)
        .unwrap()
        .0;
    assert_eq!(
        balance(&restored, &accounts(&restored), 1).unwrap(),
        Some(1)
    );
    for wrong in [keyed(2), at(&objects)] {
        let refused = Cluster::restore(OpenOptions::memory(), &wrong, &RestoreAt::Latest);
        assert!(matches!(refused, Err(Error::Backup { .. })));
        let cluster = open(wrong);
        let refused = cluster.backup_wait(None, LIMIT, &never);
        assert!(matches!(refused, Err(Error::Backup { .. })), "{refused:?}");
        assert_eq!(cluster.backup_status().unwrap().state, "refused");
    }
}

#[test]
fn the_place_of_another_cluster_is_refused() {
    let objects = Arc::new(Objects::default());
    let (first, second) = (TempDir::new(), TempDir::new());
    wait(&backed_up(&first, &objects));
    let other = backed_up(&second, &objects);
    match other.backup_wait(None, LIMIT, &never) {
        Err(Error::Backup { detail, .. }) => assert!(detail.contains("of cluster"), "{detail}"),
        done => panic!("{done:?}"),
    }
    let table = accounts(&other);
    put(&other, &table, &[(1, 1)]).unwrap();
}

#[test]
fn many_small_ranges_become_few_and_what_is_lost_of_them_is_mended() {
    let (dir, objects) = (TempDir::new(), Arc::new(Objects::default()));
    let cluster = backed_up(&dir, &objects);
    let table = accounts(&cluster);
    wait(&cluster);
    let mut lsns: Vec<Lsn> = Vec::new();
    for n in 0..70 {
        lsns.push(put(&cluster, &table, &[(n % 5, n)]).unwrap().lsn);
        wait(&cluster);
        if n == 20 {
            let lost = objects.names("log/").pop().unwrap();
            objects.objects.lock().unwrap().remove(&lost);
        }
    }
    assert!(
        objects.names("log/").len() < 70 - 32,
        "{:?}",
        objects.names("log/").len()
    );
    assert!(
        cluster
            .events()
            .iter()
            .any(|event| event.what == "backup mended")
    );
    cluster.close().unwrap();
    for n in [0, 20, 21, 40, 69] {
        let then = restore(&objects, &RestoreAt::Lsn(lsns[n]));
        assert_eq!(
            balance(&then, &accounts(&then), n as i64 % 5).unwrap(),
            Some(n as i64)
        );
    }
}
