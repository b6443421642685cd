//! A bank and counters at a writer that changes its place, and readers at its replicas.
//!
//! Whatever a replica shows, the sum is constant, and the index of balances has the same accounts; who has committed something and
//! waits until a replica shows that LSN finds it there; increments happen once, by their tokens, whoever writes. Whoever is not
//! the writer refuses to write.

use std::cell::RefCell;
use std::rc::Rc;

use aurora_engine::{Isolation, Mode};
use aurora_page::{DataType, Value};

use super::{bank, client, first, get, int, make_table, register, schema, set, table};
use crate::session::{Client, Fail, Hub, Session, Task};

/// Clients that write and read their own rows.
const OWNERS: i64 = 2;
/// How long a reader waits for a replica.
const LOOKS_MAX: u32 = 40;

pub(super) fn start(hub: &Rc<Hub>) -> Vec<Task> {
    let counts = register::Counts::default();
    let seen = counts.clone();
    let verify = move |client: Client, session: Rc<Session>| {
        let seen = seen.clone();
        async move {
            bank::look(&client, &session).await?;
            register::verify(&client, &session, &seen).await
        }
    };
    let mut tasks = vec![first(hub, setup, verify)];
    for number in 1..=3 {
        tasks.push(client(hub, number, |client| async move {
            let session = client.session().await;
            // Somebody has not heard yet who writes.
            let session = match client.chance(100) {
                true => anyone(&client, &session),
                false => session,
            };
            judge(&client, bank::transfer(&client, &session).await);
        }));
    }
    for number in 4..=5 {
        let (counts, turn) = (counts.clone(), Rc::new(RefCell::new(0u64)));
        tasks.push(client(hub, number, move |client| {
            let counts = counts.clone();
            *turn.borrow_mut() += 1;
            let token = format!("r{number}-{}", turn.borrow());
            async move { register::increment(&client, &token, &counts).await }
        }));
    }
    for number in 6..=7 {
        tasks.push(client(hub, number, |client| async move {
            let session = client.session().await;
            let reader = anyone(&client, &session);
            judge(&client, look(&client, &reader).await);
        }));
    }
    for number in 0..OWNERS {
        tasks.push(client(hub, 8 + number as u32, move |client| async move {
            let session = client.session().await;
            judge(&client, read_own(&client, &session, number).await);
        }));
    }
    tasks
}

fn judge(client: &Client, done: Result<(), Fail>) {
    match done {
        // A replica says so.
        Err(Fail::Refused(aurora_engine::EngineError::ReadOnlyInstance { .. })) => {}
        Err(Fail::Refused(error)) => client.fail(format!("replicas: refused: {error}")),
        _ => {}
    }
}

/// The same opening by way of one of its members, whoever that is.
fn anyone(client: &Client, session: &Rc<Session>) -> Rc<Session> {
    session.by(client.below(session.members.count() as u64) as usize)
}

async fn setup(client: Client, session: Rc<Session>) -> Result<(), Fail> {
    bank::setup(client.clone(), session.clone()).await?;
    register::setup(client.clone(), session.clone()).await?;
    let columns = [("n", DataType::Int64)];
    let own = make_table(&client, &session, "own", schema(&columns)).await?;
    let mut txn = client.begin(&session, Mode::ReadWrite).await?;
    for id in 0..OWNERS {
        let row = vec![Value::Int(id), Value::Int(0)];
        client
            .step(&session, |engine| {
                engine.upsert(&mut txn, &own, row.clone())
            })
            .await?;
    }
    client.commit(&session, &mut txn, None).await.map(drop)
}

/// Looks at the bank where it is connected, at what is durable there.
async fn look(client: &Client, session: &Rc<Session>) -> Result<(), Fail> {
    // A replica that follows since before there was anything may be far behind.
    if session.engine().readable() < client.hub.ready_at.get() {
        return Ok(());
    }
    let txn = client.begin_at(session, Isolation::Snapshot, false).await?;
    let vdl = aurora_proto::Volume::vdl(&*session.volume);
    if txn.snapshot() > vdl {
        let at = txn.snapshot();
        client.fail(format!(
            "[15] replicas: a reader reads at {at}, above the VDL {vdl}"
        ));
    }
    bank::look_in(client, session, &txn).await
}

/// Changes its row, and reads it at a replica once that shows the commit.
async fn read_own(client: &Client, session: &Rc<Session>, id: i64) -> Result<(), Fail> {
    let mut txn = client.begin(session, Mode::ReadWrite).await?;
    let own = table(client, session, &txn, "own").await?;
    let row = get(client, session, &txn, &own, id).await?;
    let n = row.map_or(i64::MIN, |row| int(&row, 1)).wrapping_add(1);
    set(client, session, &mut txn, &own, id, Value::Int(n)).await?;
    let commit = client.commit(session, &mut txn, None).await?;
    let reader = anyone(client, session);
    for _ in 0..LOOKS_MAX {
        if !session.alive.get() {
            return Ok(());
        }
        if reader.engine().readable() >= commit.lsn {
            break;
        }
        client.pause(500, 20_000).await;
    }
    if reader.engine().readable() < commit.lsn {
        return Ok(());
    }
    let txn = client.begin_at(&reader, Isolation::Snapshot, false).await?;
    let own = table(client, &reader, &txn, "own").await?;
    let found = get(client, &reader, &txn, &own, id).await?;
    let found = found.map_or(i64::MIN, |row| int(&row, 1));
    if found != n {
        let (at, name) = (txn.snapshot(), &reader.engine().name);
        let lsn = commit.lsn;
        client.fail(format!(
            "replicas: row {id} is {found} at {at} of {name}, and {n} was committed at {lsn}"
        ));
    }
    Ok(())
}
