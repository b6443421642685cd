//! Reads of pages over the network: the production router chooses a copy, and a second one is asked when the first is late.

use std::rc::Rc;
use std::sync::Arc;

use aurora_page::{Lsn, Page, PageId};
use aurora_proto::{NodeId, NodeSet};
use aurora_redo::PgId;
use aurora_store::StoreError;

use crate::config::Planted;
use crate::database::TaskId;
use crate::machine::{Machine, Out};
use crate::members::Member;
use crate::messages::{Event, InstanceId, ToInstance, ToNode};
use crate::session::{Response, Session};
use crate::world::World;

/// A read that nobody answers is given up.
const READ_US_MAX: u64 = 6_000_000;
/// A read is asked of another copy after so long at the latest.
const ASK_AGAIN_US_MAX: u64 = 120_000;

/// A read on its way.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) task: TaskId,
    pub(crate) ticket: u64,
    pub(crate) session: Rc<Session>,
    pub(crate) member: Rc<Member>,
    pub(crate) page: PageId,
    pub(crate) at: Lsn,
    pub(crate) asked: NodeSet,
    /// Copies that have failed since somebody was last asked anew.
    pub(crate) too_old: bool,
    pub(crate) began_us: u64,
}

/// What a node says instead of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPage {
    /// What was to be read is collected.
    TooOld,
    /// Its copy is damaged, or it does not hold the epoch.
    Other,
}

impl World {
    /// Asks the next copy for a page, and sees to it that another one is asked if it does not answer.
    pub(crate) fn ask_copy(&mut self, ticket: u64) {
        let anywhere = self.config.has(Planted::ReadAnywhere);
        let Some(base) = &mut self.base else { return };
        let Some(read) = base.reads.get_mut(&ticket) else {
            return;
        };
        let pg = PgId((read.page.0 / self.config.segment_pages) as u32);
        let writer = read.session.volume.writer();
        let candidates = match anywhere {
            true => writer.membership(pg).map_or(NodeSet::EMPTY, |m| m.nodes()),
            false => writer.readable(pg, read.at),
        };
        let epoch = writer.epoch();
        drop(writer);
        let fresh = candidates.difference(read.asked);
        let node = base.router.choose(fresh);
        let delay = match node {
            Some(node) => {
                read.asked.insert(node);
                base.router.hedge_after_us(node).min(ASK_AGAIN_US_MAX)
            }
            // Everybody was asked: from the beginning.
            None => {
                read.asked = NodeSet::EMPTY;
                ASK_AGAIN_US_MAX
            }
        };
        let (from, page, at) = (read.session.id, read.page, read.at);
        self.queue.after(delay, Event::AskAgain(ticket));
        if let Some(node) = node {
            let message = ToNode::Read {
                read: ticket,
                page,
                at,
                epoch,
            };
            self.send(from, vec![(node, message)]);
        }
    }

    pub(crate) fn on_ask_again(&mut self, ticket: u64) {
        let now = self.queue.now_us();
        let Some(base) = &mut self.base else { return };
        let Some(read) = base.reads.get(&ticket) else {
            return;
        };
        if now - read.began_us > READ_US_MAX {
            return self.end_read(ticket, Response::Gone);
        }
        self.ask_copy(ticket);
    }

    fn end_read(&mut self, ticket: u64, response: Response) {
        let read = self
            .base
            .as_mut()
            .and_then(|base| base.reads.remove(&ticket));
        if let Some(Read { task, ticket, .. }) = read {
            self.on_wake(task, ticket, response);
        }
    }

    /// A copy has answered a read.
    pub(crate) fn on_page(&mut self, node: NodeId, ticket: u64, page: Result<Arc<Page>, NoPage>) {
        let now = self.queue.now_us();
        let Some(base) = &mut self.base else { return };
        let Some(read) = base.reads.get_mut(&ticket) else {
            return;
        };
        match page {
            Ok(page) => {
                base.router.on_reply(node, now - read.began_us);
                let installed = read.member.install(read.page, (*page).clone(), read.at);
                if let Err(error) = installed {
                    return self.fail(format!("{node} sends a page that cannot be: {error}"));
                }
                self.end_read(ticket, Response::Done);
            }
            Err(NoPage::TooOld) if read.too_old => self.end_read(ticket, Response::TooOld),
            Err(no_page) => {
                base.router.on_error(node);
                // One copy may have been told of a floor for another time: ask a second one.
                read.too_old |= no_page == NoPage::TooOld;
            }
        }
    }
}

impl Machine {
    pub(crate) fn on_read(
        &mut self,
        id: NodeId,
        from: InstanceId,
        (read, page, at, epoch): (u64, PageId, Lsn, u64),
        outs: &mut Vec<Out>,
    ) {
        let Some(node) = self.alive(id) else { return };
        let Some(store) = &node.store else { return };
        let page = match node.installed == epoch {
            false => Err(NoPage::Other),
            true => match store.materialise(page, at, &node.history) {
                Ok(page) => Ok(Arc::new(page)),
                Err(StoreError::BelowFloor { .. }) => Err(NoPage::TooOld),
                Err(error) => {
                    outs.push(Out::Note(format!(
                        "{id} cannot read page {page} at {at}: {error}"
                    )));
                    Err(NoPage::Other)
                }
            },
        };
        outs.push(Out::Reply {
            to: from,
            node: id,
            message: ToInstance::Page { read, page },
        });
    }
}
