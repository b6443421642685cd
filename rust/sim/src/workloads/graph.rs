//! Which order of transactions explains what each of them saw? None, if what depends on what runs in a circle.
//!
//! Lists that are only appended to tell their own order: a read of `[3 7 4]` shows that 3, 7 and 4 were written in this order. From
//! that come the edges: *ww* to the writer of the next value, *wr* from a writer to those who saw its value as the last, *rw* from
//! whoever saw a list to the writer of the next value, and *rt* from a transaction that had ended to those that began later.
//!
//! | circle of | name | allowed |
//! |---|---|---|
//! | ww | G0 | never |
//! | ww, wr | G1c | never |
//! | ww, wr, rt and one rw | G-single | only if the rw is of one at READ COMMITTED |
//! | with several rw | G2 | not if serializable |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A transaction as its client saw it.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// Lists that it read, before its own appends.
    pub reads: Vec<(i64, Vec<i64>)>,
    /// Values that it appended, each unique.
    pub appends: Vec<(i64, i64)>,
    /// When it began and ended, in the order of real time.
    pub began: u64,
    /// When it ended; [`u64::MAX`] if nobody was told.
    pub ended: u64,
    /// Was it told to have happened? `None` if nobody knows.
    pub committed: Option<bool>,
    /// Does it see everything that was acknowledged before it began? Readers at a writer that was overtaken do not.
    pub strict: bool,
    /// Was it serializable?
    pub serializable: bool,
    /// Did it read all that it read at one state? Not at READ COMMITTED.
    pub one_snapshot: bool,
}

/// All transactions, and the lists as they are in the end.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The transactions.
    pub transactions: Vec<Transaction>,
    /// The lists.
    pub lists: BTreeMap<i64, Vec<i64>>,
}

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name in the literature.
    pub name: &'static str,
    /// What happened.
    pub story: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.story)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Ww,
    Wr,
    Rt,
    Rw,
}

type Graph = Vec<BTreeMap<usize, Edge>>;

impl History {
    /// The first thing that is wrong, if anything is.
    pub fn check(&self) -> Result<(), Found> {
        let writers = self.check_values()?;
        let graph = self.graph(&writers);
        self.check_cycles(&graph)
    }

    /// What can be said of single values: nobody saw what did not happen, nothing acknowledged is missing, all lists
    /// of a key are one list.
    fn check_values(&self) -> Result<BTreeMap<i64, usize>, Found> {
        let mut writers = BTreeMap::new();
        for (index, transaction) in self.transactions.iter().enumerate() {
            for (_, value) in &transaction.appends {
                writers.insert(*value, index);
            }
        }
        for (key, list) in &self.lists {
            let distinct: BTreeSet<&i64> = list.iter().collect();
            if distinct.len() != list.len() {
                return found(
                    "duplicate",
                    format!("list {key} has a value twice: {list:?}"),
                );
            }
        }
        for (index, transaction) in self.transactions.iter().enumerate() {
            for (key, seen) in &transaction.reads {
                let list = self.lists.get(key).map_or(&[][..], |list| &list[..]);
                if transaction.committed == Some(true) && !list.starts_with(seen) {
                    let story = format!(
                        "T{index} saw list {key} as {seen:?}, which is not the beginning of what it became: {list:?}"
                    );
                    return found("[15] G1a, a read of what did not happen", story);
                }
            }
            for (key, value) in &transaction.appends {
                let there = self.lists.get(key).is_some_and(|list| list.contains(value));
                match transaction.committed {
                    Some(true) if !there => {
                        let story = format!(
                            "T{index} was told that {value} is in list {key}, and it is not"
                        );
                        return found("[10] lost", story);
                    }
                    Some(false) if there => {
                        let story = format!(
                            "T{index} was told that it did not happen, and {value} is in list {key}"
                        );
                        return found("[15] G1a", story);
                    }
                    _ => {}
                }
            }
        }
        Ok(writers)
    }

    fn graph(&self, writers: &BTreeMap<i64, usize>) -> Graph {
        let mut graph: Graph = vec![BTreeMap::new(); self.transactions.len()];
        let mut add = |from: usize, to: usize, edge: Edge| {
            if from != to {
                let known = graph[from].entry(to).or_insert(edge);
                *known = edge.min(*known);
            }
        };
        let happened = |index: usize| self.happened(index);
        let mut next_of: BTreeMap<(i64, Option<i64>), usize> = BTreeMap::new();
        for (key, list) in &self.lists {
            let mut before: Option<i64> = None;
            for value in list {
                let Some(writer) = writers.get(value).copied() else {
                    continue;
                };
                if let Some(earlier) = before.and_then(|value| writers.get(&value)) {
                    add(*earlier, writer, Edge::Ww);
                }
                next_of.insert((*key, before), writer);
                before = Some(*value);
            }
        }
        for (index, transaction) in self.transactions.iter().enumerate() {
            if !happened(index) {
                continue;
            }
            for (key, seen) in &transaction.reads {
                if let Some(writer) = seen.last().and_then(|value| writers.get(value)) {
                    add(*writer, index, Edge::Wr);
                }
                if let Some(writer) = next_of.get(&(*key, seen.last().copied())) {
                    add(index, *writer, Edge::Rw);
                }
            }
        }
        self.real_time(&mut add);
        graph
    }

    fn happened(&self, index: usize) -> bool {
        let transaction = &self.transactions[index];
        let seen = |(key, value): &(i64, i64)| {
            self.lists.get(key).is_some_and(|list| list.contains(value))
        };
        match transaction.committed {
            Some(happened) => happened,
            None => transaction.appends.iter().any(seen),
        }
    }

    /// From each transaction that had ended to those that began later, less the edges that others imply.
    fn real_time(&self, add: &mut impl FnMut(usize, usize, Edge)) {
        let mut events: Vec<(u64, usize, bool)> = Vec::new();
        for (index, transaction) in self.transactions.iter().enumerate() {
            if transaction.committed == Some(true) {
                events.push((transaction.began, index, false));
                events.push((transaction.ended, index, true));
            }
        }
        events.sort_unstable();
        let mut ended: Vec<usize> = Vec::new();
        for (_, index, end) in events {
            let transaction = &self.transactions[index];
            if end {
                ended.retain(|earlier| {
                    !transaction.strict || self.transactions[*earlier].ended > transaction.began
                });
                ended.push(index);
            } else if transaction.strict {
                ended
                    .iter()
                    .for_each(|earlier| add(*earlier, index, Edge::Rt));
            }
        }
    }

    fn check_cycles(&self, graph: &Graph) -> Result<(), Found> {
        // Without a circle of edges below rw there is an order of all transactions that follows them.
        let Some(order) = order(graph, Edge::Rt) else {
            for (limit, name) in [
                (Edge::Ww, "G0"),
                (Edge::Wr, "G1c"),
                (Edge::Rt, "G1c in real time"),
            ] {
                for from in 0..graph.len() {
                    if let Some(path) = self.path(graph, from, from, limit, |_| true) {
                        return found(name, self.story(graph, &path));
                    }
                }
            }
            return Ok(());
        };
        for (from, edges) in graph.iter().enumerate() {
            for (to, edge) in edges {
                // What comes later in the order leads to nothing that is earlier.
                let allowed = !self.transactions[from].one_snapshot;
                if *edge != Edge::Rw || allowed || order[*to] > order[from] {
                    continue;
                }
                let between = |at: usize| order[at] <= order[from];
                if let Some(mut path) = self.path(graph, *to, from, Edge::Rt, between) {
                    path.insert(0, from);
                    return found("G-single", self.story(graph, &path));
                }
            }
        }
        let serializable = |index: usize| self.transactions[index].serializable;
        if order_of(graph, Edge::Rw, serializable).is_some() {
            return Ok(());
        }
        for from in (0..graph.len()).filter(|index| serializable(*index)) {
            if let Some(path) = self.path(graph, from, from, Edge::Rw, serializable) {
                return found("G2", self.story(graph, &path));
            }
        }
        Ok(())
    }

    /// A shortest way of at least one edge, by edges up to `limit`.
    fn path(
        &self,
        graph: &Graph,
        from: usize,
        to: usize,
        limit: Edge,
        through: impl Fn(usize) -> bool,
    ) -> Option<Vec<usize>> {
        let mut came: BTreeMap<usize, usize> = BTreeMap::new();
        let mut todo = std::collections::VecDeque::from([from]);
        while let Some(at) = todo.pop_front() {
            for (next, edge) in &graph[at] {
                if *edge > limit || !through(*next) || came.contains_key(next) {
                    continue;
                }
                came.insert(*next, at);
                if *next == to {
                    let mut path = vec![to];
                    let mut at = at;
                    while at != from {
                        path.push(at);
                        at = came[&at];
                    }
                    path.push(from);
                    path.reverse();
                    return Some(path);
                }
                todo.push_back(*next);
            }
        }
        None
    }

    fn story(&self, graph: &Graph, path: &[usize]) -> String {
        let mut out = String::new();
        for pair in path.windows(2) {
            let word = match graph[pair[0]].get(&pair[1]) {
                Some(Edge::Ww) => "wrote before",
                Some(Edge::Wr) => "was seen by",
                Some(Edge::Rt) => "had ended before the beginning of",
                Some(Edge::Rw) | None => "did not see what was written by",
            };
            out += &format!("T{} {word} T{}; ", pair[0], pair[1]);
        }
        for index in path.iter().collect::<BTreeSet<_>>() {
            let Transaction { reads, appends, .. } = &self.transactions[*index];
            out += &format!("T{index} saw {reads:?} and appended {appends:?}; ");
        }
        out
    }
}

/// The place of each transaction in an order that follows all edges up to `limit`, if there is one.
fn order(graph: &Graph, limit: Edge) -> Option<Vec<usize>> {
    order_of(graph, limit, |_| true)
}

/// The same of some of them.
fn order_of(graph: &Graph, limit: Edge, of: impl Fn(usize) -> bool) -> Option<Vec<usize>> {
    let mut before = vec![0usize; graph.len()];
    let edges = |from: usize| {
        let edges = graph[from].iter().filter(|(_, edge)| **edge <= limit);
        edges.map(|(to, _)| *to)
    };
    let some: Vec<usize> = (0..graph.len()).filter(|at| of(*at)).collect();
    for from in &some {
        edges(*from)
            .filter(|to| of(*to))
            .for_each(|to| before[to] += 1);
    }
    let mut free: Vec<usize> = some.iter().copied().filter(|at| before[*at] == 0).collect();
    let (mut place, mut next) = (vec![usize::MAX; graph.len()], 0);
    while let Some(at) = free.pop() {
        place[at] = next;
        next += 1;
        for to in edges(at).filter(|to| of(*to)) {
            before[to] -= 1;
            if before[to] == 0 {
                free.push(to);
            }
        }
    }
    (next == some.len()).then_some(place)
}

fn found<T>(name: &'static str, story: String) -> Result<T, Found> {
    Err(Found { name, story })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(
        began: u64,
        ended: u64,
        reads: &[(i64, &[i64])],
        appends: &[(i64, i64)],
    ) -> Transaction {
        Transaction {
            reads: reads
                .iter()
                .map(|(key, list)| (*key, list.to_vec()))
                .collect(),
            appends: appends.to_vec(),
            began,
            ended,
            committed: Some(true),
            strict: true,
            serializable: false,
            one_snapshot: true,
        }
    }

    fn check(transactions: &[Transaction], lists: &[(i64, &[i64])]) -> Result<(), &'static str> {
        let lists = lists
            .iter()
            .map(|(key, list)| (*key, list.to_vec()))
            .collect();
        let history = History {
            transactions: transactions.to_vec(),
            lists,
        };
        history.check().map_err(|found| found.name)
    }

    #[test]
    fn histories_that_can_be() {
        assert_eq!(check(&[], &[]), Ok(()));
        let one_after_the_other = [
            transaction(1, 2, &[], &[(1, 10)]),
            transaction(3, 4, &[(1, &[10])], &[(1, 11)]),
        ];
        assert_eq!(check(&one_after_the_other, &[(1, &[10, 11])]), Ok(()));
        // Write skew: allowed by snapshots, not if serializable.
        let mut skew = [
            transaction(1, 10, &[(1, &[])], &[(2, 20)]),
            transaction(2, 11, &[(2, &[])], &[(1, 10)]),
        ];
        assert_eq!(check(&skew, &[(1, &[10]), (2, &[20])]), Ok(()));
        skew.iter_mut().for_each(|t| t.serializable = true);
        assert_eq!(check(&skew, &[(1, &[10]), (2, &[20])]), Err("G2"));
    }

    #[test]
    fn each_circle_has_its_name() {
        let g0 = [
            transaction(1, 10, &[], &[(1, 10), (2, 20)]),
            transaction(2, 11, &[], &[(1, 11), (2, 21)]),
        ];
        assert_eq!(check(&g0, &[(1, &[10, 11]), (2, &[21, 20])]), Err("G0"));
        let g1c = [
            transaction(1, 10, &[(2, &[20])], &[(1, 10)]),
            transaction(2, 11, &[(1, &[10])], &[(2, 20)]),
        ];
        assert_eq!(check(&g1c, &[(1, &[10]), (2, &[20])]), Err("G1c"));
        let lost_update = [
            transaction(1, 10, &[(1, &[])], &[(1, 10)]),
            transaction(2, 11, &[(1, &[])], &[(1, 11)]),
        ];
        assert_eq!(check(&lost_update, &[(1, &[10, 11])]), Err("G-single"));
        let mut fractured = [
            transaction(1, 10, &[(1, &[]), (2, &[20])], &[]),
            transaction(2, 9, &[], &[(1, 10), (2, 20)]),
        ];
        let lists: [(i64, &[i64]); 2] = [(1, &[10]), (2, &[20])];
        assert_eq!(check(&fractured, &lists), Err("G-single"));
        fractured[0].one_snapshot = false;
        assert_eq!(check(&fractured, &lists), Ok(()));
        let stale = [
            transaction(1, 2, &[], &[(1, 10)]),
            transaction(3, 4, &[(1, &[])], &[]),
        ];
        assert_eq!(check(&stale, &[(1, &[10])]), Err("G-single"));
        let backwards = [
            transaction(1, 2, &[(1, &[10])], &[]),
            transaction(3, 4, &[], &[(1, 10)]),
        ];
        assert_eq!(check(&backwards, &[(1, &[10])]), Err("G1c in real time"));
    }

    #[test]
    fn single_values() {
        let mut aborted = transaction(1, 2, &[], &[(1, 10)]);
        assert_eq!(check(&[aborted.clone()], &[(1, &[])]), Err("[10] lost"));
        aborted.committed = Some(false);
        assert_eq!(check(&[aborted.clone()], &[(1, &[10])]), Err("[15] G1a"));
        aborted.committed = None;
        assert_eq!(check(&[aborted.clone()], &[(1, &[10])]), Ok(()));
        assert_eq!(check(&[aborted], &[(1, &[])]), Ok(()));
        let phantom = transaction(1, 2, &[(1, &[7])], &[]);
        assert_eq!(
            check(&[phantom], &[(1, &[])]),
            Err("[15] G1a, a read of what did not happen")
        );
        assert_eq!(check(&[], &[(1, &[7, 7])]), Err("duplicate"));
    }
}
