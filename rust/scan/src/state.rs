//! What is kept for each group until its aggregates are known. Every state is the same in whatever order rows come and parts
//! are merged.

use std::cmp::Ordering;

use aurora_page::{DataType, KeyBuf, Value, encode_part};
use rustc_hash::FxHashSet;

use crate::error::ScanError;
use crate::expr::{Datum, Kind, pow10_float};
use crate::float_sum::FloatSum;
use crate::group::{eval_error, make_canonical, value_of};
use crate::plan::AggregateFunction;
use crate::quantile::{DistinctSketch, SizeSketch, quantile};
use crate::vector::{Values, Vector, out_of_range};

/// Which state an aggregate needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StateKind {
    Rows,
    Values,
    /// Sum and count.
    Sum,
    Extreme {
        largest: bool,
    },
    Distinct,
    /// Sums of values and of squares.
    Moments,
    /// What tells roughly how many different values there are.
    Sketch,
    /// All values.
    Kept,
    /// How many values there are of about each size.
    Sizes,
}

impl StateKind {
    pub(crate) fn of(function: AggregateFunction) -> StateKind {
        match function {
            AggregateFunction::Len => StateKind::Rows,
            AggregateFunction::Count => StateKind::Values,
            AggregateFunction::Sum | AggregateFunction::Mean => StateKind::Sum,
            AggregateFunction::Min => StateKind::Extreme { largest: false },
            AggregateFunction::Max => StateKind::Extreme { largest: true },
            AggregateFunction::CountDistinct => StateKind::Distinct,
            AggregateFunction::Variance | AggregateFunction::StdDev => StateKind::Moments,
            AggregateFunction::ApproxDistinct => StateKind::Sketch,
            AggregateFunction::Quantile(..) => StateKind::Kept,
            AggregateFunction::ApproxQuantile(_) => StateKind::Sizes,
        }
    }
}

/// A state of every group.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Count(Vec<u64>),
    Exact {
        sums: Vec<i128>,
        counts: Vec<u64>,
    },
    Float {
        sums: Vec<FloatSum>,
        counts: Vec<u64>,
    },
    Extreme {
        largest: bool,
        values: Vec<Datum<'static>>,
    },
    /// Different values: those that are integers of 64 bits, and the encoded others. A value is always of the same sort.
    Distinct {
        numbers: Vec<FxHashSet<i64>>,
        sets: Vec<FxHashSet<KeyBuf>>,
        bytes: usize,
    },
    Moments {
        sums: Vec<[FloatSum; 2]>,
        counts: Vec<u64>,
    },
    Sketch(Vec<DistinctSketch>),
    Kept {
        values: Vec<Vec<f64>>,
        kept: usize,
    },
    Sizes(Vec<SizeSketch>),
}

impl State {
    pub(crate) fn new(kind: StateKind, of: Kind) -> State {
        match kind {
            StateKind::Rows | StateKind::Values => State::Count(Vec::new()),
            StateKind::Sum if of == Kind::Float => State::Float {
                sums: Vec::new(),
                counts: Vec::new(),
            },
            StateKind::Sum => State::Exact {
                sums: Vec::new(),
                counts: Vec::new(),
            },
            StateKind::Extreme { largest } => State::Extreme {
                largest,
                values: Vec::new(),
            },
            StateKind::Distinct => State::Distinct {
                numbers: Vec::new(),
                sets: Vec::new(),
                bytes: 0,
            },
            StateKind::Moments => State::Moments {
                sums: Vec::new(),
                counts: Vec::new(),
            },
            StateKind::Sketch => State::Sketch(Vec::new()),
            StateKind::Kept => State::Kept {
                values: Vec::new(),
                kept: 0,
            },
            StateKind::Sizes => State::Sizes(Vec::new()),
        }
    }

    /// Makes room for so many groups.
    pub(crate) fn grow(&mut self, groups: usize) {
        match self {
            State::Count(counts) => counts.resize(groups, 0),
            State::Exact { sums, counts } => {
                sums.resize(groups, 0);
                counts.resize(groups, 0);
            }
            State::Float { sums, counts } => {
                sums.resize_with(groups, FloatSum::default);
                counts.resize(groups, 0);
            }
            State::Extreme { values, .. } => values.resize(groups, Datum::Null),
            State::Distinct { numbers, sets, .. } => {
                numbers.resize_with(groups, FxHashSet::default);
                sets.resize_with(groups, FxHashSet::default);
            }
            State::Moments { sums, counts } => {
                sums.resize_with(groups, Default::default);
                counts.resize(groups, 0);
            }
            State::Sketch(sketches) => sketches.resize_with(groups, Default::default),
            State::Kept { values, .. } => values.resize_with(groups, Vec::new),
            State::Sizes(sketches) => sketches.resize_with(groups, Default::default),
        }
    }

    /// Memory that it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            State::Count(counts) => counts.len() * 8,
            State::Exact { sums, .. } => sums.len() * 24,
            State::Float { sums, .. } => sums.len() * 600,
            State::Extreme { values, .. } => values.len() * 48,
            State::Distinct { sets, bytes, .. } => sets.len() * 80 + bytes,
            State::Moments { sums, .. } => sums.len() * 1200,
            State::Sketch(sketches) => sketches.iter().map(DistinctSketch::bytes).sum(),
            State::Kept { values, kept } => values.len() * 24 + kept * 8,
            State::Sizes(sketches) => sketches.iter().map(SizeSketch::bytes).sum(),
        }
    }

    /// Adds rows without looking at values.
    pub(crate) fn add_rows(&mut self, groups: Option<&[u32]>, rows: usize) {
        if let State::Count(counts) = self {
            match groups {
                None => counts[0] += rows as u64,
                Some(groups) => groups.iter().for_each(|group| counts[*group as usize] += 1),
            }
        }
    }

    /// Adds the values of rows; `groups` are theirs, or all are of the first.
    pub(crate) fn add(
        &mut self,
        vector: &Vector,
        (kind, data_type): (Kind, DataType),
        groups: Option<&[u32]>,
        rows: usize,
    ) -> Result<(), ScanError> {
        let group_of = |index: usize| groups.map_or(0, |groups| groups[index] as usize);
        match self {
            State::Count(counts) => {
                for index in (0..rows).filter(|index| !vector.is_null(*index)) {
                    counts[group_of(index)] += 1;
                }
            }
            State::Exact { sums, counts } => add_exact(sums, counts, vector, groups, rows)?,
            State::Float { sums, counts } => {
                for index in (0..rows).filter(|index| !vector.is_null(*index)) {
                    if let Datum::Float(value) = vector.datum(index, kind) {
                        sums[group_of(index)].add(value);
                        counts[group_of(index)] += 1;
                    }
                }
            }
            State::Extreme { largest, values } => {
                if let (
                    None,
                    None,
                    Values::Small {
                        values: numbers, ..
                    },
                ) = (groups, &vector.nulls, &vector.values)
                {
                    // The best of the page first: one comparison of values is left.
                    let best = if *largest {
                        (0..rows).max_by_key(|index| numbers[*index])
                    } else {
                        (0..rows).min_by_key(|index| numbers[*index])
                    };
                    if let Some(best) = best {
                        let datum = vector.datum(best, kind);
                        if is_better(*largest, &datum, &values[0]) {
                            values[0] = datum.into_owned();
                        }
                    }
                    return Ok(());
                }
                for index in 0..rows {
                    let datum = vector.datum(index, kind);
                    let place = &mut values[group_of(index)];
                    if is_better(*largest, &datum, place) {
                        *place = datum.into_owned();
                    }
                }
            }
            State::Distinct {
                numbers,
                sets,
                bytes,
            } => {
                if let (Values::Small { values, .. }, true) = (
                    &vector.values,
                    matches!(kind, Kind::Int | Kind::Decimal { .. }),
                ) {
                    for index in (0..rows).filter(|index| !vector.is_null(*index)) {
                        let new = numbers[group_of(index)].insert(values[index]);
                        *bytes += if new { 16 } else { 0 };
                    }
                    return Ok(());
                }
                for index in (0..rows).filter(|index| !vector.is_null(*index)) {
                    let datum = vector.datum(index, kind);
                    if let Datum::Exact(number) = datum
                        && let Ok(number) = i64::try_from(number)
                    {
                        let new = numbers[group_of(index)].insert(number);
                        *bytes += if new { 16 } else { 0 };
                        continue;
                    }
                    let value = value_of(datum, data_type)?;
                    let mut encoded = KeyBuf::new();
                    encode_part(&mut encoded, data_type, value.as_ref(), false, false);
                    let len = encoded.len();
                    if sets[group_of(index)].insert(encoded) {
                        *bytes += 48 + if len > 32 { len } else { 0 };
                    }
                }
            }
            State::Moments { sums, counts } => {
                for (index, value) in floats(vector, kind, rows) {
                    let [first, second] = &mut sums[group_of(index)];
                    let square = value * value;
                    first.add(value);
                    second.add(square);
                    if square.is_finite() {
                        second.add(value.mul_add(value, -square));
                    }
                    counts[group_of(index)] += 1;
                }
            }
            State::Sketch(sketches) => {
                for index in (0..rows).filter(|index| !vector.is_null(*index)) {
                    let value = value_of(vector.datum(index, kind), data_type)?;
                    let mut encoded = KeyBuf::new();
                    encode_part(&mut encoded, data_type, value.as_ref(), false, false);
                    sketches[group_of(index)].add(&encoded);
                }
            }
            State::Kept { values, kept } => {
                for (index, value) in floats(vector, kind, rows) {
                    values[group_of(index)].push(value);
                    *kept += 1;
                }
            }
            State::Sizes(sketches) => {
                for (index, value) in floats(vector, kind, rows) {
                    sketches[group_of(index)].add(value);
                }
            }
        }
        Ok(())
    }

    /// Adds the state of another part; `to` says which group each of its groups is here.
    pub(crate) fn merge(&mut self, other: State, to: &[u32]) -> Result<(), ScanError> {
        let places = || to.iter().map(|group| *group as usize);
        match (self, other) {
            (State::Count(counts), State::Count(more)) => {
                places().zip(more).for_each(|(at, more)| counts[at] += more);
            }
            (
                State::Exact { sums, counts },
                State::Exact {
                    sums: more,
                    counts: n,
                },
            ) => {
                for ((at, more), n) in places().zip(more).zip(n) {
                    sums[at] = sums[at].checked_add(more).ok_or_else(too_large)?;
                    counts[at] += n;
                }
            }
            (
                State::Float { sums, counts },
                State::Float {
                    sums: more,
                    counts: n,
                },
            ) => {
                for ((at, more), n) in places().zip(more).zip(n) {
                    sums[at].merge(&more);
                    counts[at] += n;
                }
            }
            (State::Extreme { largest, values }, State::Extreme { values: more, .. }) => {
                for (at, more) in places().zip(more) {
                    if is_better(*largest, &more, &values[at]) {
                        values[at] = more;
                    }
                }
            }
            (
                State::Distinct {
                    numbers,
                    sets,
                    bytes,
                },
                State::Distinct {
                    numbers: more_numbers,
                    sets: more,
                    bytes: n,
                },
            ) => {
                for (at, more) in places().zip(more_numbers) {
                    if numbers[at].is_empty() {
                        numbers[at] = more;
                    } else {
                        numbers[at].extend(more);
                    }
                }
                for (at, more) in places().zip(more) {
                    sets[at].extend(more);
                }
                *bytes += n;
            }
            (
                State::Moments { sums, counts },
                State::Moments {
                    sums: more,
                    counts: n,
                },
            ) => {
                for ((at, more), n) in places().zip(more).zip(n) {
                    sums[at][0].merge(&more[0]);
                    sums[at][1].merge(&more[1]);
                    counts[at] += n;
                }
            }
            (State::Sketch(sketches), State::Sketch(more)) => {
                places()
                    .zip(more)
                    .for_each(|(at, more)| sketches[at].merge(more));
            }
            (
                State::Kept { values, kept },
                State::Kept {
                    values: more,
                    kept: n,
                },
            ) => {
                places()
                    .zip(more)
                    .for_each(|(at, more)| values[at].extend(more));
                *kept += n;
            }
            (State::Sizes(sketches), State::Sizes(more)) => {
                places()
                    .zip(more)
                    .for_each(|(at, more)| sketches[at].merge(more));
            }
            _ => unreachable!("parts of one plan have the same states"),
        }
        Ok(())
    }

    /// The value of an aggregate for a group.
    pub(crate) fn value(
        &self,
        group: usize,
        function: AggregateFunction,
        kind: Kind,
        data_type: DataType,
    ) -> Result<Value, ScanError> {
        let scale = kind.scale().unwrap_or(0);
        Ok(match self {
            State::Count(counts) => Value::Int(counts[group] as i64),
            State::Distinct { numbers, sets, .. } => {
                Value::Int((numbers[group].len() + sets[group].len()) as i64)
            }
            State::Exact { counts, .. } | State::Float { counts, .. } if counts[group] == 0 => {
                Value::Null
            }
            State::Exact { sums, counts } if function == AggregateFunction::Mean => {
                let mean = sums[group] as f64 / counts[group] as f64;
                Value::Float64(mean / pow10_float(scale))
            }
            State::Exact { sums, .. } => Datum::Exact(sums[group])
                .into_value(data_type)
                .map_err(eval_error)?,
            State::Float { sums, counts } => {
                let sum = sums[group].value();
                Value::Float64(if function == AggregateFunction::Mean {
                    sum / counts[group] as f64
                } else {
                    sum
                })
            }
            State::Extreme { values, .. } => {
                let mut value = value_of(values[group].clone(), data_type)?;
                make_canonical(&mut value);
                value
            }
            State::Sketch(sketches) => Value::Int(sketches[group].estimate()),
            State::Kept { values, .. } => match function {
                AggregateFunction::Quantile(share, between) => {
                    quantile(values[group].clone(), share, between)
                        .map_or(Value::Null, Value::Float64)
                }
                _ => Value::Null,
            },
            State::Sizes(sketches) => match function {
                AggregateFunction::ApproxQuantile(share) => sketches[group]
                    .quantile(share)
                    .map_or(Value::Null, Value::Float64),
                _ => Value::Null,
            },
            State::Moments { counts, .. } if counts[group] < 2 => Value::Null,
            State::Moments { sums, counts } => {
                let variance = variance(&sums[group], counts[group] as f64);
                Value::Float64(if function == AggregateFunction::StdDev {
                    variance.sqrt()
                } else {
                    variance
                })
            }
        })
    }
}

/// The numbers of a vector as floats, with their places; nulls left out.
fn floats<'v>(
    vector: &'v Vector,
    kind: Kind,
    rows: usize,
) -> impl Iterator<Item = (usize, f64)> + 'v {
    let power = pow10_float(kind.scale().unwrap_or(0));
    let there = (0..rows).filter(|index| !vector.is_null(*index));
    there.filter_map(move |index| match vector.datum(index, kind) {
        Datum::Float(value) => Some((index, value)),
        Datum::Exact(value) => Some((index, value as f64 / power)),
        _ => None,
    })
}

fn too_large() -> ScanError {
    eval_error(out_of_range(
        "a sum of at most 38 digits",
        "more than 38 digits".into(),
    ))
}

fn add_exact(
    sums: &mut [i128],
    counts: &mut [u64],
    vector: &Vector,
    groups: Option<&[u32]>,
    rows: usize,
) -> Result<(), ScanError> {
    let (values, nulls) = (&vector.values, &vector.nulls);
    match (values, nulls, groups) {
        (Values::Small { values, low, high }, None, None) => {
            // Within the bounds, the sum of a page stays within 64 bits almost always.
            let most = low.unsigned_abs().max(high.unsigned_abs());
            let sum = if most.saturating_mul(rows as u128) < i64::MAX as u128 {
                values
                    .iter()
                    .fold(0i64, |sum, value| sum.wrapping_add(*value))
                    .into()
            } else {
                values.iter().map(|value| i128::from(*value)).sum::<i128>()
            };
            sums[0] = sums[0].checked_add(sum).ok_or_else(too_large)?;
            counts[0] += rows as u64;
        }
        (Values::Small { values, .. }, None, Some(groups)) => {
            // 64 bits times the rows that there can be do not overflow 128.
            for (value, group) in values.iter().zip(groups) {
                let at = *group as usize;
                sums[at] = sums[at].wrapping_add(i128::from(*value));
                counts[at] += 1;
            }
        }
        _ => {
            for index in (0..rows).filter(|index| !vector.is_null(*index)) {
                if let Datum::Exact(value) = vector.datum(index, Kind::Int) {
                    let at = groups.map_or(0, |groups| groups[index] as usize);
                    sums[at] = sums[at].checked_add(value).ok_or_else(too_large)?;
                    counts[at] += 1;
                }
            }
        }
    }
    Ok(())
}

fn is_better(largest: bool, candidate: &Datum<'_>, best: &Datum<'_>) -> bool {
    if candidate.is_null() {
        return false;
    }
    let order = candidate.order(best);
    best.is_null()
        || order
            == if largest {
                Ordering::Greater
            } else {
                Ordering::Less
            }
}

/// The sample variance from exact sums of values and squares, with twice the digits of a float on the way: their difference
/// may be far smaller than they are.
fn variance([first, second]: &[FloatSum; 2], n: f64) -> f64 {
    let (sum, sum_low) = halves(first);
    let (squares, squares_low) = halves(second);
    if !sum.is_finite() || !squares.is_finite() {
        return f64::NAN;
    }
    let product = sum * sum;
    let product_low = sum.mul_add(sum, -product) + 2.0 * sum * sum_low;
    let quotient = product / n;
    let quotient_low = ((-quotient).mul_add(n, product) + product_low) / n;
    let difference = (squares - quotient) + (squares_low - quotient_low);
    (difference / (n - 1.0)).max(0.0)
}

fn halves(sum: &FloatSum) -> (f64, f64) {
    let high = sum.value();
    if !high.is_finite() {
        return (high, 0.0);
    }
    let mut rest = sum.clone();
    rest.add(-high);
    (high, rest.value())
}
