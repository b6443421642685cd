//! Failovers within an instance: planned, forced, and after a writer's engine broke down. What `runtime::failover` does.

use std::rc::Rc;

use aurora_control::{Candidate, choose};
use aurora_proto::Volume;

use crate::session::{Client, Session};

/// How long a planned failover waits for its target before it touches the writer.
const CATCH_UP_US: u64 = 2_000_000;

/// Another member becomes the writer, now and then, as long as the instance lives.
pub(crate) async fn switch_writers(client: Client, session: Rc<Session>) {
    loop {
        client.pause(300_000, 5_000_000).await;
        if !session.alive.get() || client.ending() {
            return;
        }
        let wrong = match client.below(10) {
            0..5 => hand_over(&client, &session).await,
            5..8 => take_over(&client, &session).await,
            _ => restart_replica(&client, &session),
        };
        if let Err(what) = wrong {
            return client.fail(format!("a failover of {}: {what}", session.id));
        }
    }
}

/// Who is to write: Aurora's rule, among those who follow.
fn target(client: &Client, session: &Session) -> Option<usize> {
    let members = &session.members;
    let candidate = |seat: usize| Candidate {
        name: members.at(seat).name.clone(),
        tier: client.below(2) as u8,
        class: 0,
        applied: members.at(seat).readable(),
    };
    let seats = (0..members.count()).filter(|seat| *seat != members.writer());
    let candidates: Vec<Candidate> = seats.map(candidate).collect();
    let chosen = choose(&candidates)?.name.clone();
    (0..members.count()).find(|seat| members.at(*seat).name == chosen)
}

/// Planned: what is under way is handed over.
async fn hand_over(client: &Client, session: &Rc<Session>) -> Result<(), String> {
    let Some(seat) = target(client, session) else {
        return Ok(());
    };
    let (members, begun) = (&session.members, client.hub.now_us.get());
    let shown = session.volume.vdl();
    while members.at(seat).readable() < shown {
        client.sleep(2_000).await;
        if !session.alive.get() || client.hub.now_us.get() - begun > CATCH_UP_US {
            return Ok(());
        }
    }
    let handed = members.retire(seat);
    let numbered = session.volume.numbered();
    if client.durable(session, numbered).await.is_err() {
        // The storage does not answer: the old one goes on, if its process does.
        members.resume(handed);
        return Ok(());
    }
    client.note(format_args!(
        "{:?} hands over to {:?}",
        members.at(members.writer()),
        members.at(seat)
    ));
    members.promote(seat, handed, true)
}

/// Forced: nobody is asked; or the writer has broken down, and is found to be silent after a while.
async fn take_over(client: &Client, session: &Rc<Session>) -> Result<(), String> {
    let members = &session.members;
    if client.chance(500) {
        client.note(format_args!(
            "{:?} breaks down",
            members.at(members.writer())
        ));
        members.at(members.writer()).crash();
        client.pause(20_000, 800_000).await;
    }
    let Some(seat) = target(client, session).filter(|_| session.alive.get()) else {
        return Ok(());
    };
    let handed = members.retire(seat);
    loop {
        let numbered = session.volume.numbered();
        if client.durable(session, numbered).await.is_ok() {
            break;
        }
        if !session.alive.get() {
            return Ok(());
        }
    }
    client.note(format_args!(
        "{:?} takes the place of {:?}",
        members.at(seat),
        members.at(members.writer())
    ));
    members.promote(seat, handed, false)
}

/// A replica breaks down, and is made anew.
fn restart_replica(client: &Client, session: &Session) -> Result<(), String> {
    let members = &session.members;
    let seat = client.below(members.count() as u64) as usize;
    if seat == members.writer() {
        return Ok(());
    }
    client.note(format_args!("{:?} is made anew", members.at(seat)));
    members.at(seat).crash();
    members.add_follower(Some(seat)).map(drop)
}
