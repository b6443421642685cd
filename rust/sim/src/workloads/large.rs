//! Values of many pages, in so many rows that the volume grows through segments, and deleted again so that extents come back.
//! Each value says who wrote it and is made of that: a page of another row, or of another version, shows.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use aurora_engine::Mode;
use aurora_page::{DataType, Value};

use super::{client, first, int, make_table, read_mode, rows, schema, table};
use crate::session::{Client, Fail, Hub, Session, Task};

const ROWS: u64 = 24;

/// What each row may be: its version's seed, 0 for no row. More than one while a commit is in doubt.
type Rows = Rc<RefCell<BTreeMap<i64, Vec<i64>>>>;

pub(super) fn start(hub: &Rc<Hub>) -> Vec<Task> {
    let known = Rows::default();
    let seen = known.clone();
    let verify = move |client: Client, session: Rc<Session>| {
        let seen = seen.clone();
        async move { look(&client, &session, Some(&seen)).await }
    };
    let mut tasks = vec![first(hub, setup, verify)];
    // Each client has rows of its own, so that each knows what they are.
    for number in 1..=3u32 {
        let known = known.clone();
        tasks.push(client(hub, number, move |client| {
            let known = known.clone();
            async move {
                let session = client.session().await;
                let done = match client.chance(200) {
                    true => look(&client, &session, None).await,
                    false => write(&client, &session, &known, i64::from(number)).await,
                };
                if let Err(Fail::Refused(error)) = done {
                    client.fail(format!("large: refused: {error}"));
                }
            }
        }));
    }
    tasks
}

async fn setup(client: Client, session: Rc<Session>) -> Result<(), Fail> {
    let columns = [("seed", DataType::Int64), ("body", DataType::Bytes)];
    make_table(&client, &session, "large", schema(&columns))
        .await
        .map(drop)
}

/// What the seed of a version says its value is.
fn body(id: i64, seed: i64) -> Vec<u8> {
    let mut rng = crate::rng::Rng::new((id as u64) << 32 | seed as u64);
    let len = match rng.below(4) {
        0 => rng.below(60),
        1 => rng.below(2_000),
        _ => rng.below(12_000),
    };
    (0..len).map(|_| rng.bits() as u8).collect()
}

async fn write(
    client: &Client,
    session: &Rc<Session>,
    known: &Rows,
    number: i64,
) -> Result<(), Fail> {
    let mut txn = client.begin(session, Mode::ReadWrite).await?;
    let large = table(client, session, &txn, "large").await?;
    let mut after = BTreeMap::new();
    for _ in 0..client.between(1, 2) {
        let id = number * 1000 + client.below(ROWS) as i64;
        let delete = client.chance(300);
        let seed = if delete {
            0
        } else {
            client.between(1, 1 << 30) as i64
        };
        let key = large.key(&[Value::Int(id)]).map_err(Fail::Refused)?;
        let row = vec![
            Value::Int(id),
            Value::Int(seed),
            Value::Bytes(body(id, seed)),
        ];
        client
            .step(session, |engine| match delete {
                true => engine.delete(&mut txn, &large, &key).map(drop),
                false => engine.upsert(&mut txn, &large, row.clone()),
            })
            .await?;
        after.insert(id, seed);
    }
    let done = client.commit(session, &mut txn, None).await;
    let mut known = known.borrow_mut();
    for (id, seed) in after {
        let may_be = known.entry(id).or_insert_with(|| vec![0]);
        match &done {
            Ok(_) => *may_be = vec![seed],
            Err(Fail::InDoubt) => may_be.push(seed),
            Err(_) => {}
        }
    }
    done.map(drop)
}

async fn look(client: &Client, session: &Rc<Session>, known: Option<&Rows>) -> Result<(), Fail> {
    let mut txn = client.begin(session, read_mode(client)).await?;
    let large = table(client, session, &txn, "large").await?;
    let at = txn.snapshot();
    let mut found = BTreeMap::new();
    for row in rows(client, session, &txn, &large).await? {
        let (id, seed) = (int(&row, 0), int(&row, 1));
        let value = match row.get(2) {
            Some(Value::Bytes(bytes)) => bytes.clone(),
            Some(Value::Overflow(reference)) => {
                client
                    .step(session, |engine| engine.read_overflow(at, *reference))
                    .await?
            }
            other => {
                client.fail(format!("large: row {id} at {at} holds {other:?}"));
                return Ok(());
            }
        };
        if value != body(id, seed) {
            client.fail(format!(
                "large: row {id} of version {seed} at {at} has {} bytes that are not its own",
                value.len()
            ));
        }
        found.insert(id, seed);
    }
    client.commit(session, &mut txn, None).await?;
    let Some(known) = known else { return Ok(()) };
    for (id, may_be) in known.borrow().iter() {
        let seed = found.get(id).copied().unwrap_or(0);
        if !may_be.contains(&seed) {
            client.fail(format!(
                "[10] large: row {id} is version {seed}, and should be one of {may_be:?}"
            ));
        }
    }
    Ok(())
}
