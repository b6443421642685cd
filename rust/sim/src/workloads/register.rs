//! Counters. Each increment carries a token; where its outcome is unknown, the token tells. In the end each counter is the number
//! of increments that happened, no more and no less.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use aurora_engine::{EngineError, Mode};
use aurora_page::{DataType, Value};

use super::{client, first, get_to_change, int, level, make_table, rows, schema, set, table};
use crate::session::{Client, Fail, Hub, Session, Task};

const COUNTERS: i64 = 4;

/// Increments that happened, by counter.
pub(super) type Counts = Rc<RefCell<BTreeMap<i64, i64>>>;

pub(super) fn start(hub: &Rc<Hub>) -> Vec<Task> {
    let counts = Counts::default();
    let seen = counts.clone();
    let verify = move |client: Client, session: Rc<Session>| {
        let seen = seen.clone();
        async move { verify(&client, &session, &seen).await }
    };
    let mut tasks = vec![first(hub, setup, verify)];
    for number in 1..=4 {
        let (counts, turn) = (counts.clone(), Rc::new(RefCell::new(0u64)));
        tasks.push(client(hub, number, move |client| {
            let counts = counts.clone();
            *turn.borrow_mut() += 1;
            let token = format!("c{number}-{}", turn.borrow());
            async move { increment(&client, &token, &counts).await }
        }));
    }
    tasks
}

pub(super) async fn setup(client: Client, session: Rc<Session>) -> Result<(), Fail> {
    let table = make_table(
        &client,
        &session,
        "counters",
        schema(&[("n", DataType::Int64)]),
    )
    .await?;
    let mut txn = client.begin(&session, Mode::ReadWrite).await?;
    for id in 0..COUNTERS {
        let row = vec![Value::Int(id), Value::Int(0)];
        client
            .step(&session, |engine| {
                engine.upsert(&mut txn, &table, row.clone())
            })
            .await?;
    }
    client.commit(&session, &mut txn, None).await.map(drop)
}

/// Tries until it has happened, once.
pub(super) async fn increment(client: &Client, token: &str, counts: &Counts) {
    let id = client.below(COUNTERS as u64) as i64;
    loop {
        let session = client.session().await;
        match attempt(client, &session, id, token).await {
            Ok(()) => break,
            Err(Fail::InDoubt) => {
                let happened = client.resolve(token).await;
                client.note(format_args!("token {token} was in doubt: {happened}"));
                if happened {
                    break;
                }
                // As a service does that does not trust the answer: the token makes a second try harmless.
                if client.chance(500) {
                    continue;
                }
                return;
            }
            Err(Fail::Refused(EngineError::TokenUsed { .. })) => {
                client.note(format_args!("token {token} is used"));
                break;
            }
            Err(Fail::Refused(error)) => {
                return client.fail(format!("register: refused: {error}"));
            }
            Err(_) => client.pause(1_000, 30_000).await,
        }
    }
    *counts.borrow_mut().entry(id).or_default() += 1;
}

async fn attempt(client: &Client, session: &Rc<Session>, id: i64, token: &str) -> Result<(), Fail> {
    let mut txn = client.begin_isolated(session, level(client)).await?;
    let table = table(client, session, &txn, "counters").await?;
    let row = get_to_change(client, session, &mut txn, &table, id).await?;
    let n = row.map_or(i64::MIN, |row| int(&row, 1));
    if client.chance(300) {
        client.pause(100, 60_000).await;
    }
    set(
        client,
        session,
        &mut txn,
        &table,
        id,
        Value::Int(n.wrapping_add(1)),
    )
    .await?;
    client
        .commit(session, &mut txn, Some(token))
        .await
        .map(drop)
}

pub(super) async fn verify(
    client: &Client,
    session: &Rc<Session>,
    counts: &Counts,
) -> Result<(), Fail> {
    let mut txn = client.begin(session, Mode::ReadWrite).await?;
    let table = table(client, session, &txn, "counters").await?;
    let all = rows(client, session, &txn, &table).await?;
    client.commit(session, &mut txn, None).await?;
    for row in &all {
        let (id, n) = (int(row, 0), int(row, 1));
        let happened = counts.borrow().get(&id).copied().unwrap_or(0);
        if n != happened {
            client.fail(format!(
                "[10] register: counter {id} is {n}, and {happened} increments were told to have happened: {}",
                if n < happened { "some are lost" } else { "some happened twice, or were said not to" }
            ));
        }
    }
    if all.len() as i64 != COUNTERS {
        client.fail(format!("register: {} counters", all.len()));
    }
    Ok(())
}
