//! What operations cost, in nanoseconds: `cargo test --release -p aurora-engine --test cost -- --ignored --nocapture`.

#![allow(clippy::disallowed_methods, reason = "this test measures time")]

mod common;

use std::sync::Arc;
use std::time::Instant;

use aurora_engine::{EngineConfig, Mode};
use aurora_page::{Geometry, Lsn, Value, VolumeId};
use aurora_proto::{Numbered, Refused, Volume};
use aurora_redo::Mtr;
use common::{Db, Random, people};
use parking_lot::Mutex;

/// A volume that only counts, so that the engine's own cost is seen. Everything stays cached.
struct Null {
    geometry: Geometry,
    next: Mutex<(u64, u64)>,
}

impl Volume for Null {
    fn origin(&self) -> VolumeId {
        common::ORIGIN
    }
    fn vdl(&self) -> Lsn {
        Lsn(self.next.lock().0)
    }
    fn numbered(&self) -> Lsn {
        Lsn(self.next.lock().0)
    }
    fn geometry(&self) -> Geometry {
        self.geometry
    }
    fn segments(&self) -> u64 {
        self.next.lock().1
    }
    fn append(&self, mtr: Mtr) -> Result<Numbered, Refused> {
        let mut next = self.next.lock();
        let base = Lsn(next.0 + 1);
        next.0 += mtr.len() as u64;
        Ok(Numbered {
            base,
            last: Lsn(next.0),
        })
    }
}

#[test]
#[ignore = "a measurement, for release builds"]
fn costs() {
    let geometry = Geometry::new(32 * 1024, 8192);
    let volume = Arc::new(Null {
        geometry,
        next: Mutex::new((0, 64)),
    });
    let config = EngineConfig {
        cache_bytes: 2 << 30,
        ..EngineConfig::default()
    };
    let engine = aurora_engine::Engine::new(volume, config).unwrap();
    macro_rules! run {
        ($step:expr) => {
            loop {
                match $step {
                    Ok(done) => break done,
                    Err(aurora_engine::Stop::NeedPage { page, at }) => engine
                        .install(page, aurora_page::Page::empty(page, 32 * 1024), at)
                        .unwrap(),
                    Err(other) => panic!("{other:?}"),
                }
            }
        };
    }
    run!(engine.bootstrap(1));
    let (table, _) = run!(engine.create_table("people", people(), false, 2));
    let rows = 1_000_000;
    let start = Instant::now();
    for from in (0..rows).step_by(1000) {
        let mut txn = run!(engine.begin(Mode::ReadWrite));
        for id in from..from + 1000 {
            let row = vec![
                Value::Int(id),
                Value::Text("a name of some length".into()),
                Value::Int(1),
            ];
            run!(engine.insert(&mut txn, &table, row.clone()));
        }
        run!(engine.commit(&mut txn, 3 + from, None));
    }
    println!(
        "insert, 1000 per commit     {:6} ns/row",
        start.elapsed().as_nanos() as i64 / rows
    );
    let mut random = Random(1);
    let keys: Vec<_> = (0..200_000)
        .map(|_| {
            table
                .key(&[Value::Int(random.below(rows as u64) as i64)])
                .unwrap()
        })
        .collect();
    for (name, count) in [
        ("random over all rows", 200_000),
        ("random over 1000 keys", 1000),
    ] {
        for mode in [Mode::ReadOnly { at: None }, Mode::ReadWrite] {
            let txn = run!(engine.begin(mode));
            let start = Instant::now();
            for n in 0..400_000 {
                assert!(
                    engine
                        .get(&txn, &table, &keys[n % count])
                        .unwrap()
                        .is_some()
                );
            }
            println!(
                "get, {name:22} {:6} ns ({mode:?})",
                start.elapsed().as_nanos() / 400_000
            );
        }
    }
    let start = Instant::now();
    for _ in 0..400_000 {
        drop(run!(engine.begin(Mode::ReadOnly { at: None })));
    }
    println!(
        "begin and end               {:6} ns",
        start.elapsed().as_nanos() / 400_000
    );
    for (name, count) in [("random rows", 200_000), ("100 hot rows", 100)] {
        let (mut committing, mut whole) = (0, 0);
        for n in 0..200_000usize {
            let start = Instant::now();
            let mut txn = run!(engine.begin(Mode::ReadWrite));
            let key = &keys[n % count];
            assert!(run!(engine.update(
                &mut txn,
                &table,
                key,
                vec![(2, Value::Int(n as i64))]
            )));
            let before = Instant::now();
            run!(engine.commit(&mut txn, 1 << 40, None));
            committing += before.elapsed().as_nanos();
            whole += start.elapsed().as_nanos();
        }
        println!(
            "update of one row, {name:12} {:6} ns, of it commit {:6} ns",
            whole / 200_000,
            committing / 200_000
        );
    }
    println!("{:?}", engine.cache_stats());
    let _ = Db::now;
}
