//! Accounts, and transfers between them. Whoever looks sees the same sum, and through the index of balances the same accounts.

use std::rc::Rc;

use aurora_engine::{IndexSpec, Mode, TableSpec, Txn};
use aurora_page::{DataType, Value};

use super::{
    client, first, get_to_change, int, level, make_table_with, read_mode, rows, rows_by_index,
    schema, set, table,
};
use crate::session::{Client, Fail, Hub, Session, Task};

const ACCOUNTS: i64 = 12;
const EACH: i64 = 1000;

pub(super) fn start(hub: &Rc<Hub>) -> Vec<Task> {
    let mut tasks = vec![first(hub, setup, |c, s| async move { look(&c, &s).await })];
    for number in 1..=5 {
        tasks.push(client(hub, number, move |client| async move {
            let session = client.session().await;
            let done = match client.chance(250) {
                true => look(&client, &session).await,
                false => transfer(&client, &session).await,
            };
            if let Err(Fail::Refused(error)) = done {
                client.fail(format!("bank: refused: {error}"));
            }
        }));
    }
    tasks
}

pub(super) async fn setup(client: Client, session: Rc<Session>) -> Result<(), Fail> {
    let by_balance = IndexSpec::by("by_balance", &[(1, false)], false);
    let spec = TableSpec {
        indexes: vec![by_balance],
        ..TableSpec::new(schema(&[("balance", DataType::Int64)]))
    };
    let table = make_table_with(&client, &session, "bank", spec).await?;
    let mut txn = client.begin(&session, Mode::ReadWrite).await?;
    for id in 0..ACCOUNTS {
        let row = vec![Value::Int(id), Value::Int(EACH)];
        client
            .step(&session, |engine| {
                engine.upsert(&mut txn, &table, row.clone())
            })
            .await?;
    }
    client.commit(&session, &mut txn, None).await.map(drop)
}

pub(super) async fn transfer(client: &Client, session: &Rc<Session>) -> Result<(), Fail> {
    let from = client.below(ACCOUNTS as u64) as i64;
    let to = (from + client.between(1, ACCOUNTS as u64 - 1) as i64) % ACCOUNTS;
    let mut txn = client.begin_isolated(session, level(client)).await?;
    let bank = table(client, session, &txn, "bank").await?;
    let mut balances = [0; 2];
    for (id, balance) in [from, to].into_iter().zip(&mut balances) {
        let row = get_to_change(client, session, &mut txn, &bank, id).await?;
        *balance = row.map_or(i64::MIN, |row| int(&row, 1));
        client.pause(100, 40_000).await;
    }
    if balances.contains(&i64::MIN) {
        client.fail(format!(
            "bank: account {from} or {to} is not there at {}",
            txn.snapshot()
        ));
        return Ok(());
    }
    let amount = client.below(100) as i64;
    set(
        client,
        session,
        &mut txn,
        &bank,
        from,
        Value::Int(balances[0] - amount),
    )
    .await?;
    set(
        client,
        session,
        &mut txn,
        &bank,
        to,
        Value::Int(balances[1] + amount),
    )
    .await?;
    client.commit(session, &mut txn, None).await.map(drop)
}

pub(super) async fn look(client: &Client, session: &Rc<Session>) -> Result<(), Fail> {
    let mut txn = client.begin(session, read_mode(client)).await?;
    let seen = rows_of(client, session, &txn).await?;
    client.commit(session, &mut txn, None).await?;
    judge(client, &txn, seen);
    Ok(())
}

/// What a transaction sees that need not be committed: it reads what is durable.
pub(super) async fn look_in(client: &Client, session: &Rc<Session>, txn: &Txn) -> Result<(), Fail> {
    let seen = rows_of(client, session, txn).await?;
    judge(client, txn, seen);
    Ok(())
}

/// The accounts, by the table and by its index.
async fn rows_of(
    client: &Client,
    session: &Rc<Session>,
    txn: &Txn,
) -> Result<[Vec<Vec<Value>>; 2], Fail> {
    let bank = table(client, session, txn, "bank").await?;
    let all = rows(client, session, txn, &bank).await?;
    let indexed = rows_by_index(client, session, txn, &bank).await?;
    Ok([all, indexed])
}

fn judge(client: &Client, txn: &Txn, [all, indexed]: [Vec<Vec<Value>>; 2]) {
    let at = txn.snapshot();
    let sum: i64 = all.iter().map(|row| int(row, 1)).sum();
    let mut by_balance = all.clone();
    by_balance.sort_by_key(|row| (int(row, 1), int(row, 0)));
    if by_balance != indexed {
        client.fail(format!(
            "bank: at {at} the index has {indexed:?}, and the table {by_balance:?}"
        ));
    }
    if sum != ACCOUNTS * EACH {
        client.fail(format!(
            "bank: at {at} the sum of {} accounts is {sum}, not {}",
            all.len(),
            ACCOUNTS * EACH
        ));
    }
}
