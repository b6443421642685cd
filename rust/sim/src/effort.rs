//! How much a world may do: one that does not come to an end fails, and says with what it was busy.
//!
//! Virtual time does not tell: it stands still while messages breed messages, and it hardly moves while each of them copies a
//! whole group. So events are counted, and pages that go from node to node.

use std::collections::BTreeMap;

use crate::messages::{Event, ToInstance, ToNode};

/// Events of a world at the most.
pub const EVENTS_MAX: u64 = 3_000_000;
/// Pages that arrive at nodes of a world at the most.
pub const PAGES_MAX: u64 = 250_000;

/// What a world has done so far.
#[derive(Debug, Default)]
pub(crate) struct Effort {
    pub(crate) events: u64,
    pub(crate) pages: u64,
    kinds: BTreeMap<&'static str, u64>,
}

impl Effort {
    /// One more event. What is wrong, if it is one too many.
    pub(crate) fn spend(&mut self, event: &Event) -> Option<String> {
        self.events += 1;
        *self.kinds.entry(kind(event)).or_default() += 1;
        if let Event::ToNode {
            message: ToNode::Hydrate { exports, .. } | ToNode::Replicate { exports, .. },
            ..
        } = event
        {
            let pages: usize = exports.iter().map(|export| export.chains.len()).sum();
            self.pages += pages as u64;
        }
        let too_much = self.events > EVENTS_MAX || self.pages > PAGES_MAX;
        too_much.then(|| self.story())
    }

    fn story(&self) -> String {
        let mut kinds: Vec<(&str, u64)> = self.kinds.iter().map(|(k, n)| (*k, *n)).collect();
        kinds.sort_by_key(|(kind, count)| (std::cmp::Reverse(*count), *kind));
        let most: Vec<String> = kinds
            .iter()
            .take(5)
            .map(|(kind, count)| format!("{count} times {kind}"))
            .collect();
        format!(
            "the world does not come to an end: {} events, {} pages given from node to node; mostly {}",
            self.events,
            self.pages,
            most.join(", ")
        )
    }
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::ToNode { message, .. } => match message {
            ToNode::Batch(_) => "a batch",
            ToNode::Summary(_) => "a summary",
            ToNode::Ask { .. } => "an ask",
            ToNode::Answer(_) => "an answer",
            ToNode::Hydrate { .. } => "an answer with pages",
            ToNode::Fence { .. } => "a fence",
            ToNode::Give { .. } => "a job of a recovery",
            ToNode::Replicate { .. } => "what a job brings",
            ToNode::Install { .. } => "an install",
            ToNode::PutBlob { .. } => "a blob",
            ToNode::WantBlob { .. } => "an ask for a blob",
            ToNode::Read { .. } => "a read",
        },
        Event::ToInstance { message, .. } => match message {
            ToInstance::Ack(_) => "an acknowledgement",
            ToInstance::Inventory(_) => "an inventory",
            ToInstance::Stale { .. } => "a refusal",
            ToInstance::Installed { .. } | ToInstance::NotInstalled => "a word about an install",
            ToInstance::BlobStored { .. } => "a word about a blob",
            ToInstance::Page { .. } => "a page",
        },
        Event::Sync { .. } => "a sync",
        Event::Boot { .. } => "a start",
        Event::Tick(_) => "a tick",
        Event::Tend { .. } => "care for layers",
        Event::Wake { .. } => "the end of a wait",
        Event::AskAgain(_) => "a late read",
        Event::StoreAgain(_) => "a late blob",
        Event::FaultEnds(_) => "the end of a fault",
        Event::Follow(..) => "a look for redo",
        Event::Chaos => "a fault",
        Event::Check => "a check",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aurora_page::{Lsn, PageId};
    use aurora_proto::{Answer, NodeId};
    use aurora_redo::{PgBatch, PgId};
    use aurora_store::{Export, PageChain};

    use super::*;
    use crate::messages::InstanceId;

    #[test]
    fn one_event_too_many_is_told_with_what_there_was_most_of() {
        let mut effort = Effort::default();
        effort.spend(&Event::Chaos);
        let mut told = None;
        while told.is_none() {
            told = effort.spend(&Event::AskAgain(1));
        }
        assert_eq!(effort.events, EVENTS_MAX + 1);
        let expected = "the world does not come to an end: 3000001 events, 0 pages given from node to node; \
                        mostly 3000000 times a late read, 1 times a fault";
        assert_eq!(told.as_deref(), Some(expected));
    }

    /// Few events can do too much: each of them a whole group.
    #[test]
    fn one_page_too_many_is_told_as_well() {
        let page = PageChain {
            page: PageId(1),
            images: Vec::new(),
            records: Vec::new(),
        };
        let export = Export {
            chains: vec![page; 1000],
            ..Export::default()
        };
        let batch = PgBatch {
            pg: PgId(0),
            epoch: 1,
            vdl: Lsn::NONE,
            records: Vec::new(),
        };
        let given = Event::ToNode {
            node: NodeId(0),
            from: InstanceId(1),
            message: ToNode::Hydrate {
                answer: Answer {
                    batch,
                    after: Lsn::NONE,
                    complete_to: Lsn(9),
                },
                exports: Arc::new(vec![export.clone(), export]),
            },
        };
        let mut effort = Effort::default();
        let fits = PAGES_MAX / 2000;
        for _ in 0..fits {
            assert_eq!(effort.spend(&given), None);
        }
        let expected = "the world does not come to an end: 126 events, 252000 pages given from node to node; \
                        mostly 126 times an answer with pages";
        assert_eq!(effort.spend(&given).as_deref(), Some(expected));
    }
}
