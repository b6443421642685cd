//! A ring of rows, each naming the next. A transaction takes a row out of its place and puts it back one further: three rows
//! change. Whoever looks, at any snapshot, sees one ring of all rows.

use std::rc::Rc;

use aurora_engine::Mode;
use aurora_page::{DataType, Value};

use super::{
    client, first, get_to_change, int, level, make_table, read_mode, rows, schema, set, table,
};
use crate::session::{Client, Fail, Hub, Session, Task};

const ROWS: i64 = 40;

pub(super) fn start(hub: &Rc<Hub>) -> Vec<Task> {
    let mut tasks = vec![first(hub, setup, |c, s| async move { look(&c, &s).await })];
    for number in 1..=4 {
        tasks.push(client(hub, number, move |client| async move {
            let session = client.session().await;
            let done = match client.chance(250) {
                true => look(&client, &session).await,
                false => swap(&client, &session).await,
            };
            if let Err(Fail::Refused(error)) = done {
                client.fail(format!("ring: refused: {error}"));
            }
        }));
    }
    tasks
}

async fn setup(client: Client, session: Rc<Session>) -> Result<(), Fail> {
    let table = make_table(
        &client,
        &session,
        "ring",
        schema(&[("next", DataType::Int64)]),
    )
    .await?;
    let mut txn = client.begin(&session, Mode::ReadWrite).await?;
    for id in 0..ROWS {
        let row = vec![Value::Int(id), Value::Int((id + 1) % ROWS)];
        client
            .step(&session, |engine| {
                engine.upsert(&mut txn, &table, row.clone())
            })
            .await?;
    }
    client.commit(&session, &mut txn, None).await.map(drop)
}

async fn swap(client: &Client, session: &Rc<Session>) -> Result<(), Fail> {
    let mut txn = client.begin_isolated(session, level(client)).await?;
    let ring = table(client, session, &txn, "ring").await?;
    let a = client.below(ROWS as u64) as i64;
    let mut places = [a, 0, 0, 0];
    for n in 1..4 {
        let row = get_to_change(client, session, &mut txn, &ring, places[n - 1]).await?;
        let Some(row) = row else {
            client.fail(format!(
                "ring: row {} is not there at {}",
                places[n - 1],
                txn.snapshot()
            ));
            return Ok(());
        };
        places[n] = int(&row, 1);
        if client.chance(200) {
            client.pause(1_000, 50_000).await;
        }
    }
    let [a, b, c, d] = places;
    for (id, next) in [(a, c), (c, b), (b, d)] {
        set(client, session, &mut txn, &ring, id, Value::Int(next)).await?;
    }
    client.commit(session, &mut txn, None).await.map(drop)
}

async fn look(client: &Client, session: &Rc<Session>) -> Result<(), Fail> {
    let mut txn = client.begin(session, read_mode(client)).await?;
    let ring = table(client, session, &txn, "ring").await?;
    let all = rows(client, session, &txn, &ring).await?;
    let at = txn.snapshot();
    // What was read at the newest numbered state counts once that is durable.
    client.commit(session, &mut txn, None).await?;
    let next = |id: i64| all.get(id as usize).map_or(-1, |row| int(row, 1));
    let (mut id, mut steps) = (0, 0);
    while steps < ROWS && (0..ROWS).contains(&id) {
        id = next(id);
        steps += 1;
        if id == 0 {
            break;
        }
    }
    if all.len() as i64 != ROWS || id != 0 || steps != ROWS {
        client.fail(format!(
            "[6] ring: at {at} the ring closes after {steps} of {ROWS} steps at row {id}, with {} rows: a transaction happened in part, or one change was lost",
            all.len()
        ));
    }
    Ok(())
}
