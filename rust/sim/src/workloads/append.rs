//! Lists in text values, appended to by transactions of several operations. In the end [`super::graph`] decides whether there is
//! an order that explains everything that was seen, real time included.

use std::cell::RefCell;
use std::rc::Rc;

use aurora_engine::{Isolation, Mode};
use aurora_page::{DataType, Value};

use super::graph::{History, Transaction};
use super::{
    client, first, get, get_to_change, int, level, make_table, read_mode, rows, schema, table,
};
use crate::session::{Client, Fail, Hub, Session, Task};

/// Lists in use at a time, and how long one gets.
const LISTS: u64 = 5;
const LONG: usize = 24;

#[derive(Debug, Default)]
struct State {
    history: History,
    /// Lists before this one are left alone: they are long enough.
    base: i64,
    value: i64,
}

type Shared = Rc<RefCell<State>>;

pub(super) fn start(hub: &Rc<Hub>) -> Vec<Task> {
    let shared = Shared::default();
    let seen = shared.clone();
    let verify = move |client: Client, session: Rc<Session>| {
        let seen = seen.clone();
        async move { verify(&client, &session, &seen).await }
    };
    let mut tasks = vec![first(hub, setup, verify)];
    for number in 1..=5 {
        let shared = shared.clone();
        tasks.push(client(hub, number, move |client| {
            let shared = shared.clone();
            async move { transaction(&client, &shared).await }
        }));
    }
    tasks
}

async fn setup(client: Client, session: Rc<Session>) -> Result<(), Fail> {
    let columns = [("list", DataType::Text)];
    make_table(&client, &session, "lists", schema(&columns))
        .await
        .map(drop)
}

fn parse(row: Option<&Vec<Value>>) -> Vec<i64> {
    match row.and_then(|row| row.get(1)) {
        Some(Value::Text(text)) => text
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect(),
        _ => Vec::new(),
    }
}

fn show(list: &[i64]) -> Value {
    Value::Text(
        list.iter()
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(" "),
    )
}

async fn transaction(client: &Client, shared: &Shared) {
    let session = client.session().await;
    let place = {
        let mut state = shared.borrow_mut();
        let began = client.hub.next_order();
        state.history.transactions.push(Transaction {
            began,
            ended: u64::MAX,
            committed: Some(false),
            strict: true,
            ..Transaction::default()
        });
        state.history.transactions.len() - 1
    };
    let done = run(client, &session, shared, place).await;
    let mut state = shared.borrow_mut();
    let (ended, strict) = (client.hub.next_order(), client.is_current(&session));
    let noted = &mut state.history.transactions[place];
    noted.ended = ended;
    match done {
        Ok(()) => noted.committed = Some(true),
        Err(Fail::InDoubt) => (noted.committed, noted.ended) = (None, u64::MAX),
        Err(Fail::Refused(error)) => client.fail(format!("append: refused: {error}")),
        Err(_) => {}
    }
    // Whoever wrote and was acknowledged saw the newest; a reader only if its writer was the one.
    noted.strict = strict || (noted.committed == Some(true) && !noted.appends.is_empty());
}

async fn run(
    client: &Client,
    session: &Rc<Session>,
    shared: &Shared,
    place: usize,
) -> Result<(), Fail> {
    let reads_only = client.chance(300);
    let mut txn = match reads_only {
        true => client.begin(session, read_mode(client)).await?,
        false => client.begin_isolated(session, level(client)).await?,
    };
    {
        let noted = &mut shared.borrow_mut().history.transactions[place];
        noted.serializable = txn.isolation() == Isolation::Serializable;
        noted.one_snapshot = txn.isolation() != Isolation::ReadCommitted;
    }
    let lists = table(client, session, &txn, "lists").await?;
    let mut touched: Vec<i64> = Vec::new();
    for _ in 0..client.between(1, 4) {
        let key = shared.borrow().base + client.below(LISTS) as i64;
        if touched.contains(&key) {
            continue;
        }
        touched.push(key);
        let row = match reads_only {
            true => get(client, session, &txn, &lists, key).await?,
            false => get_to_change(client, session, &mut txn, &lists, key).await?,
        };
        let mut list = parse(row.as_ref());
        shared.borrow_mut().history.transactions[place]
            .reads
            .push((key, list.clone()));
        if list.len() >= LONG {
            let mut state = shared.borrow_mut();
            state.base = state.base.max(key + 1);
        } else if !reads_only && client.chance(600) {
            let value = {
                let mut state = shared.borrow_mut();
                state.value += 1;
                let value = state.value;
                state.history.transactions[place].appends.push((key, value));
                value
            };
            list.push(value);
            client
                .step(session, |engine| {
                    engine.upsert(&mut txn, &lists, vec![Value::Int(key), show(&list)])
                })
                .await?;
        }
        if client.chance(300) {
            client.pause(100, 60_000).await;
        }
    }
    client.commit(session, &mut txn, None).await.map(drop)
}

async fn verify(client: &Client, session: &Rc<Session>, shared: &Shared) -> Result<(), Fail> {
    let mut txn = client.begin(session, Mode::ReadWrite).await?;
    let lists = table(client, session, &txn, "lists").await?;
    let all = rows(client, session, &txn, &lists).await?;
    client.commit(session, &mut txn, None).await?;
    let mut history = shared.borrow().history.clone();
    history.lists = all
        .iter()
        .map(|row| (int(row, 0), parse(Some(row))))
        .collect();
    if let Err(found) = history.check() {
        client.fail(format!("append: {found}"));
    }
    Ok(())
}
