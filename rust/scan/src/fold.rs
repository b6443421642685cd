//! Pages and rows folded into a partial result; partial results merged; the result.
//!
//! A partial result is the same whatever the order of what was folded into it, so that parts of a table can be scanned by any
//! node, in any order, on any number of threads.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use aurora_page::{ColumnMap, DataType, LeafRef, SealedRef, Value, ValueRef};

use crate::conditions::{Test, tests};
use crate::error::{ReadLong, ScanError};
use crate::expr::{Datum, Kind, Typed};
use crate::group::{Groups, value_of};
use crate::on_row::on_values;
use crate::plan::BoundPlan;
use crate::state::{State, StateKind};
use crate::vector::{Rows, Vector};
use crate::view::PageView;

/// The first rows by some columns of the result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopN {
    /// Indexes of the result's columns, and whether the largest come first.
    pub by: Vec<(usize, bool)>,
    /// Rows that are wanted.
    pub rows: usize,
}

/// A plan ready to be run; shared by all who do.
#[derive(Debug)]
pub struct Job {
    plan: BoundPlan,
    tests: Vec<Test>,
    types: Vec<DataType>,
    /// A state per pair of input and kind; aggregates that need the same share it.
    states: Vec<(Option<usize>, StateKind)>,
    state_of: Vec<usize>,
    top: Option<TopN>,
    memory_max: usize,
}

/// What was done to get a result.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Pages looked at.
    pub pages: u64,
    /// Of these, pages whose zone maps said that no row passes.
    pub pages_skipped: u64,
    /// Of these, pages in sealed form.
    pub pages_sealed: u64,
    /// Rows of the pages that were not skipped.
    pub rows_scanned: u64,
    /// Rows that passed the filter.
    pub rows_passed: u64,
}

impl Counters {
    /// Adds others.
    pub fn add(&mut self, other: &Counters) {
        self.pages += other.pages;
        self.pages_skipped += other.pages_skipped;
        self.pages_sealed += other.pages_sealed;
        self.rows_scanned += other.rows_scanned;
        self.rows_passed += other.rows_passed;
    }
}

/// The result of a part of the rows.
#[derive(Debug)]
pub struct Partial {
    job: Arc<Job>,
    groups: Groups,
    states: Vec<State>,
    rows: Vec<Vec<Value>>,
    row_bytes: usize,
    /// What was done for it.
    pub counters: Counters,
}

impl Job {
    /// The plan, with what is wanted of its result if that is not all. Groups, or rows that are kept, may take `memory_max`
    /// bytes, roughly.
    pub fn new(plan: BoundPlan, top: Option<TopN>, memory_max: usize) -> Job {
        let tests = tests(plan.filter.iter().map(|bound| bound.root().clone()));
        let types = plan
            .output()
            .columns()
            .iter()
            .map(|column| column.data_type)
            .collect();
        let (mut states, mut state_of) = (Vec::new(), Vec::new());
        for aggregate in &plan.aggregates {
            let wanted = (aggregate.input, StateKind::of(aggregate.function));
            let known = states.iter().position(|state| *state == wanted);
            if known.is_none() {
                states.push(wanted);
            }
            state_of.push(known.unwrap_or(states.len() - 1));
        }
        Job {
            plan,
            tests,
            types,
            states,
            state_of,
            top,
            memory_max,
        }
    }

    /// The plan.
    pub fn plan(&self) -> &BoundPlan {
        &self.plan
    }

    fn kind_of(&self, input: Option<usize>) -> Kind {
        input.map_or(Kind::Int, |input| self.plan.inputs[input].kind())
    }

    /// The rows of a page that pass, of these ranks or of all, as ascending ranks.
    ///
    /// # Errors
    /// Rows that the filter has no value for.
    pub fn passing_ranks(
        &self,
        leaf: &LeafRef<'_>,
        ranks: Range<usize>,
        long: ReadLong<'_>,
    ) -> Result<Vec<usize>, ScanError> {
        let page = PageView::Leaf(leaf);
        let Some(places) = self.places(page.map(&self.plan.schema)?.as_ref()) else {
            let mut passing = Vec::new();
            for rank in ranks {
                let row = mapped_row(&self.plan, &page, usize::from(leaf.slot(rank)))?;
                if self.passes(&row, &mut *long)? {
                    passing.push(rank);
                }
            }
            return Ok(passing);
        };
        let mask = self.mask(&page, &places, Some(ranks.clone()), long)?;
        let Some(mask) = mask else {
            return Ok(Vec::new());
        };
        Ok(ranks
            .filter(|rank| mask[usize::from(leaf.slot(*rank))] != 0)
            .collect())
    }

    /// Whether a row passes.
    ///
    /// # Errors
    /// As [`passing_ranks`](Self::passing_ranks).
    pub fn passes(&self, row: &[Value], long: ReadLong<'_>) -> Result<bool, ScanError> {
        for condition in &self.plan.filter {
            let test = on_values(
                condition.root(),
                &|column| row[column].as_ref(),
                &mut *long,
                |typed, row| typed.test(row),
            )?;
            if test != Some(true) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a row gives, for plans that make no groups.
    ///
    /// # Errors
    /// Rows that an expression has no value for.
    pub fn project<'r>(
        &self,
        row: &dyn Fn(usize) -> ValueRef<'r>,
        long: ReadLong<'_>,
    ) -> Result<Vec<Value>, ScanError> {
        let keys = self.plan.keys.iter().zip(&self.types);
        keys.map(|(key, data_type)| {
            let datum = on_values(key.root(), row, &mut *long, |typed, row| {
                typed.evaluate(row).map(Datum::into_owned)
            })?;
            value_of(datum, *data_type)
        })
        .collect()
    }

    /// Where the columns that are read lie in the page; `None` if one of them is not there as the schema has it, because the
    /// page is older than a change of it.
    fn places(&self, map: Option<&ColumnMap>) -> Option<Vec<Option<usize>>> {
        let columns = self.plan.schema.columns().len();
        let Some(map) = map else {
            return Some((0..columns).map(Some).collect());
        };
        let mut places = vec![None; columns];
        for column in &self.plan.columns {
            places[*column] = Some(map.same(*column)?);
        }
        Some(places)
    }

    /// One byte per position, 1 where a row passes; `None` if the zones say that none does.
    fn mask(
        &self,
        page: &PageView<'_>,
        places: &[Option<usize>],
        ranks: Option<Range<usize>>,
        long: ReadLong<'_>,
    ) -> Result<Option<Vec<u8>>, ScanError> {
        for test in &self.tests {
            let Some(place) = test.column().and_then(|column| places[column]) else {
                continue;
            };
            if !test.may_pass(&page.column(place)) {
                return Ok(None);
            }
        }
        let mut mask = live(page, ranks);
        for test in &self.tests {
            test.apply(page, places, &mut mask, &mut *long)?;
        }
        Ok(Some(mask))
    }
}

/// The row at a position of a page of an earlier schema, as the present one has it.
fn mapped_row(
    plan: &BoundPlan,
    page: &PageView<'_>,
    position: usize,
) -> Result<Vec<Value>, ScanError> {
    let map = page.map(&plan.schema)?;
    let value = |column: usize| page.value(position, Some(column));
    let columns = 0..plan.schema.columns().len();
    Ok(match &map {
        None => columns.map(|column| value(column).to_owned()).collect(),
        Some(map) => columns
            .map(|column| map.value(column, value).to_owned())
            .collect(),
    })
}

/// One byte per position, 1 where there is a row, of these ranks if they are given.
fn live(page: &PageView<'_>, ranks: Option<Range<usize>>) -> Vec<u8> {
    match (page, ranks) {
        (PageView::Sealed(sealed), None) => vec![1; sealed.len()],
        (PageView::Sealed(sealed), Some(ranks)) => {
            let mut mask = vec![0; sealed.len()];
            mask[ranks].fill(1);
            mask
        }
        (PageView::Leaf(leaf), None) => {
            let bits = leaf.live_bitmap();
            let bit = |at: usize| bits.get(at / 8).map_or(0, |byte| byte >> (at % 8) & 1);
            (0..leaf.capacity()).map(bit).collect()
        }
        (PageView::Leaf(leaf), Some(ranks)) => {
            let mut mask = vec![0; leaf.capacity()];
            for rank in ranks {
                if let Some(place) = mask.get_mut(usize::from(leaf.slot(rank))) {
                    *place = 1;
                }
            }
            mask
        }
    }
}

impl Partial {
    /// The result of no rows.
    pub fn new(job: Arc<Job>) -> Partial {
        let mut states: Vec<State> = job
            .states
            .iter()
            .map(|(input, kind)| State::new(*kind, job.kind_of(*input)))
            .collect();
        let mut groups = Groups::default();
        if job.plan.groups && job.plan.keys.is_empty() {
            // Without keys there is one group, even of no rows.
            groups.of(&[], Vec::new());
            states.iter_mut().for_each(|state| state.grow(1));
        }
        Partial {
            job,
            groups,
            states,
            rows: Vec::new(),
            row_bytes: 0,
            counters: Counters::default(),
        }
    }

    /// Folds a sealed leaf.
    ///
    /// # Errors
    /// Rows without a value, values in overflow pages that cannot be had, too much memory.
    pub fn fold_sealed(
        &mut self,
        sealed: &SealedRef<'_>,
        long: ReadLong<'_>,
    ) -> Result<(), ScanError> {
        self.counters.pages_sealed += 1;
        self.fold_page(&PageView::Sealed(sealed), None, long)
    }

    /// Folds a plain leaf, or some ranks of it.
    ///
    /// # Errors
    /// As [`fold_sealed`](Self::fold_sealed).
    pub fn fold_leaf(
        &mut self,
        leaf: &LeafRef<'_>,
        ranks: Option<Range<usize>>,
        long: ReadLong<'_>,
    ) -> Result<(), ScanError> {
        self.fold_page(&PageView::Leaf(leaf), ranks, long)
    }

    fn fold_page(
        &mut self,
        page: &PageView<'_>,
        ranks: Option<Range<usize>>,
        long: ReadLong<'_>,
    ) -> Result<(), ScanError> {
        let job = self.job.clone();
        self.counters.pages += 1;
        if page.rows() == 0 {
            return Ok(());
        }
        let Some(places) = job.places(page.map(&job.plan.schema)?.as_ref()) else {
            for at in (0..)
                .zip(live(page, ranks))
                .filter(|(_, live)| *live != 0)
                .map(|(at, _)| at)
            {
                let row = mapped_row(&job.plan, page, at)?;
                self.fold_row(&row, &mut *long)?;
            }
            return Ok(());
        };
        let Some(mask) = job.mask(page, &places, ranks, &mut *long)? else {
            self.counters.pages_skipped += 1;
            return Ok(());
        };
        self.counters.rows_scanned += page.rows() as u64;
        let mut positions = Vec::with_capacity(mask.len());
        positions.extend(
            mask.iter()
                .zip(0u16..)
                .filter(|(selected, _)| **selected != 0)
                .map(|(_, at)| at),
        );
        if positions.is_empty() {
            return Ok(());
        }
        self.counters.rows_passed += positions.len() as u64;
        let rows = Rows {
            page,
            places: &places,
            positions: &positions,
        };
        if job.plan.groups {
            self.fold_groups(&job, &rows, long)?;
        } else {
            for at in &positions {
                let row = |column: usize| page.value(usize::from(*at), places[column]);
                let row = job.project(&row, &mut *long)?;
                self.keep(&job, row);
            }
        }
        self.check_memory(&job)
    }

    fn fold_groups(
        &mut self,
        job: &Job,
        rows: &Rows<'_, '_>,
        long: ReadLong<'_>,
    ) -> Result<(), ScanError> {
        let count = rows.positions.len();
        let groups = if job.plan.keys.is_empty() {
            None
        } else {
            let types = &job.types[..job.plan.keys.len()];
            let groups = self.groups.of_page(&job.plan, types, rows, &mut *long)?;
            let len = self.groups.len();
            self.states.iter_mut().for_each(|state| state.grow(len));
            Some(groups)
        };
        let mut vectors: Vec<Option<Vector>> = vec![None; job.plan.inputs.len()];
        for ((input, _), state) in job.states.iter().zip(&mut self.states) {
            let Some(input) = *input else {
                state.add_rows(groups.as_deref(), count);
                continue;
            };
            let bound = &job.plan.inputs[input];
            if vectors[input].is_none() {
                vectors[input] = Some(rows.evaluate(bound.root(), &mut *long)?);
            }
            if let Some(vector) = &vectors[input] {
                let data_type = bound.data_type().unwrap_or(DataType::Int64);
                state.add(vector, (bound.kind(), data_type), groups.as_deref(), count)?;
            }
        }
        Ok(())
    }

    /// Folds a row that lies in no page: one that its transaction has changed.
    ///
    /// # Errors
    /// As [`fold_sealed`](Self::fold_sealed).
    pub fn fold_row(&mut self, row: &[Value], long: ReadLong<'_>) -> Result<(), ScanError> {
        let job = self.job.clone();
        self.counters.rows_scanned += 1;
        if !job.passes(row, &mut *long)? {
            return Ok(());
        }
        self.counters.rows_passed += 1;
        let lookup = |column: usize| row[column].as_ref();
        if !job.plan.groups {
            let row = job.project(&lookup, long)?;
            self.keep(&job, row);
            return self.check_memory(&job);
        }
        let mut value = |typed: &Typed| {
            on_values(typed, &lookup, &mut *long, |typed, row| {
                typed.evaluate(row).map(Datum::into_owned)
            })
        };
        let mut keys = Vec::with_capacity(job.plan.keys.len());
        for (key, data_type) in job.plan.keys.iter().zip(&job.types) {
            keys.push(value_of(value(key.root())?, *data_type)?);
        }
        let group = self.groups.of(&job.types[..keys.len()], keys);
        let len = self.groups.len();
        for ((input, _), state) in job.states.iter().zip(&mut self.states) {
            state.grow(len);
            let Some(input) = *input else {
                state.add_rows(Some(&[group]), 1);
                continue;
            };
            let bound = &job.plan.inputs[input];
            let vector = Vector::of(bound.kind(), vec![value(bound.root())?]);
            let data_type = bound.data_type().unwrap_or(DataType::Int64);
            state.add(&vector, (bound.kind(), data_type), Some(&[group]), 1)?;
        }
        self.check_memory(&job)
    }

    fn keep(&mut self, job: &Job, row: Vec<Value>) {
        self.row_bytes += row.iter().map(value_bytes).sum::<usize>();
        self.rows.push(row);
        if let Some(top) = &job.top
            && self.rows.len() > 2 * top.rows + 1024
        {
            self.cut(top);
        }
    }

    fn cut(&mut self, top: &TopN) {
        sort_rows(&mut self.rows, &top.by);
        self.rows.truncate(top.rows);
        self.row_bytes = self.rows.iter().flatten().map(value_bytes).sum();
    }

    fn check_memory(&self, job: &Job) -> Result<(), ScanError> {
        let states: usize = self.states.iter().map(State::bytes).sum();
        let got = self.row_bytes + self.groups.bytes() + states;
        if got > job.memory_max {
            return Err(ScanError::Memory {
                limit: job.memory_max,
                got,
            });
        }
        Ok(())
    }

    /// Adds the result of another part of the rows.
    ///
    /// # Errors
    /// Sums and groups that are too large together.
    pub fn merge(&mut self, other: Partial) -> Result<(), ScanError> {
        let job = self.job.clone();
        let key_types = &job.types[..if job.plan.groups {
            job.plan.keys.len()
        } else {
            0
        }];
        let to: Vec<u32> = other
            .groups
            .keys
            .into_iter()
            .map(|keys| self.groups.of(key_types, keys))
            .collect();
        let len = self.groups.len();
        for (state, more) in self.states.iter_mut().zip(other.states) {
            state.grow(len);
            state.merge(more, &to)?;
        }
        self.rows.extend(other.rows);
        self.row_bytes += other.row_bytes;
        if let Some(top) = &job.top
            && !job.plan.groups
        {
            self.cut(top);
        }
        self.counters.add(&other.counters);
        self.check_memory(&job)
    }

    /// The rows of the result: groups in no particular order, or sorted and cut if that was asked for.
    ///
    /// # Errors
    /// Sums that their type does not hold.
    pub fn finish(self) -> Result<Vec<Vec<Value>>, ScanError> {
        let job = self.job;
        let mut rows = self.rows;
        if job.plan.groups {
            for (group, keys) in self.groups.keys.into_iter().enumerate() {
                let mut row = keys;
                for (aggregate, state) in job.plan.aggregates.iter().zip(&job.state_of) {
                    let kind = job.kind_of(aggregate.input);
                    let state = &self.states[*state];
                    row.push(state.value(group, aggregate.function, kind, aggregate.data_type)?);
                }
                rows.push(row);
            }
        }
        if let Some(top) = &job.top {
            sort_rows(&mut rows, &top.by);
            rows.truncate(top.rows);
        }
        Ok(rows)
    }
}

/// Sorts rows by columns; nulls come first, and last where the order descends. Rows that are equal stay in their order.
pub fn sort_rows(rows: &mut [Vec<Value>], by: &[(usize, bool)]) {
    rows.sort_by(|a, b| {
        by.iter()
            .map(|(column, descending)| {
                let order = order(&a[*column], &b[*column]);
                if *descending { order.reverse() } else { order }
            })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    });
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (Datum::load(a.as_ref(), 0), Datum::load(b.as_ref(), 0)) {
        (Ok(a), Ok(b)) => a.order(&b),
        _ => Ordering::Equal,
    }
}

fn value_bytes(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Text(text) | Value::Json(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
}
