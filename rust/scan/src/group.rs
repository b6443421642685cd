//! Groups: which group a row belongs to, by the values of its keys.

use aurora_page::{DataType, KeyBuf, Value, encode_part};
use rustc_hash::FxHashMap;

use crate::error::{ReadLong, ScanError};
use crate::expr::{Datum, EvalError, Kind};
use crate::on_row::on_values;
use crate::plan::BoundPlan;
use crate::vector::{Rows, Values, Vector};
use crate::view::Lanes;

/// Most combinations of codes of one page that are looked up in a table.
const CODES_MAX: usize = 1 << 14;

/// Bytes that a group takes besides its key, roughly.
const GROUP_BYTES: usize = 160;

/// The groups so far, in the order in which they were met.
#[derive(Clone, Default, Debug)]
pub(crate) struct Groups {
    index: FxHashMap<KeyBuf, u32>,
    /// Of groups by one integer.
    numbers: FxHashMap<i64, u32>,
    pub(crate) keys: Vec<Vec<Value>>,
    key_bytes: usize,
}

impl Groups {
    /// Groups.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Memory that they take, roughly, without what is computed for them.
    pub(crate) fn bytes(&self) -> usize {
        self.key_bytes + self.keys.len() * GROUP_BYTES
    }

    /// The group of these keys.
    pub(crate) fn of(&mut self, types: &[DataType], mut keys: Vec<Value>) -> u32 {
        keys.iter_mut().for_each(make_canonical);
        if let [Value::Int(number)] = keys[..] {
            return self.of_number(number);
        }
        let mut encoded = KeyBuf::new();
        for (value, data_type) in keys.iter().zip(types) {
            encode_part(&mut encoded, *data_type, value.as_ref(), true, false);
        }
        if let Some(group) = self.index.get(&encoded) {
            return *group;
        }
        let group = self.keys.len() as u32;
        self.key_bytes += 2 * encoded.len();
        self.index.insert(encoded, group);
        self.keys.push(keys);
        group
    }

    /// The group of one integer, which needs no bytes to be found.
    fn of_number(&mut self, number: i64) -> u32 {
        let next = self.keys.len() as u32;
        let group = *self.numbers.entry(number).or_insert(next);
        if group == next {
            self.keys.push(vec![Value::Int(number)]);
        }
        group
    }

    /// The group of each selected row of a page.
    pub(crate) fn of_page(
        &mut self,
        plan: &BoundPlan,
        types: &[DataType],
        rows: &Rows<'_, '_>,
        long: ReadLong<'_>,
    ) -> Result<Vec<u32>, ScanError> {
        if let Some(groups) = self.by_codes(plan, types, rows, &mut *long)? {
            return Ok(groups);
        }
        let mut vectors = Vec::with_capacity(plan.keys.len());
        for key in &plan.keys {
            vectors.push(rows.evaluate(key.root(), &mut *long)?);
        }
        if let [vector] = &vectors[..]
            && let Values::Small { values, .. } = &vector.values
        {
            return self.by_number(plan, types, vector, values);
        }
        (0..rows.positions.len())
            .map(|index| {
                let keys = plan.keys.iter().zip(&vectors).zip(types);
                let keys: Result<Vec<Value>, ScanError> = keys
                    .map(|((key, vector), data_type)| {
                        value_of(vector.datum(index, key.kind()), *data_type)
                    })
                    .collect();
                Ok(self.of(types, keys?))
            })
            .collect()
    }

    fn by_number(
        &mut self,
        plan: &BoundPlan,
        types: &[DataType],
        vector: &Vector,
        values: &[i64],
    ) -> Result<Vec<u32>, ScanError> {
        let is_int = plan.keys[0].kind() == Kind::Int && types[0] == DataType::Int64
            || matches!(types[0], DataType::Int8 | DataType::Int16 | DataType::Int32);
        if is_int
            && vector.nulls.is_none()
            && let Some((min, max)) = types[0].int_range()
            && values.iter().all(|number| (min..=max).contains(number))
        {
            return Ok(values
                .iter()
                .map(|number| self.of_number(*number))
                .collect());
        }
        let mut groups = Vec::with_capacity(values.len());
        for index in 0..values.len() {
            let datum = vector.datum(index, plan.keys[0].kind());
            groups.push(self.of(types, vec![value_of(datum, types[0])?]));
        }
        Ok(groups)
    }

    /// Where every key is a column with few codes in this page, a table of their combinations tells the group.
    fn by_codes(
        &mut self,
        plan: &BoundPlan,
        types: &[DataType],
        rows: &Rows<'_, '_>,
        long: ReadLong<'_>,
    ) -> Result<Option<Vec<u32>>, ScanError> {
        let mut combined = vec![0u16; rows.positions.len()];
        let mut combinations = 1;
        for key in &plan.keys {
            let crate::expr::Node::Column(column) = key.root().node else {
                return Ok(None);
            };
            let Some(place) = rows.places.get(column).copied().flatten() else {
                return Ok(None);
            };
            let view = rows.page.column(place);
            let (codes, count) = match (&view.sealed, view.lanes) {
                (_, Some(Lanes::Dictionary { codes, len, .. })) => (codes, len),
                (Some(sealed), None) => match sealed.data {
                    aurora_page::SealedData::VarDictionary { codes, len, .. } => (codes, len),
                    _ => return Ok(None),
                },
                (Some(sealed), Some(_)) => match sealed.data {
                    aurora_page::SealedData::Packed { offsets, .. } if offsets.width() <= 1 => {
                        (offsets, 256)
                    }
                    _ => return Ok(None),
                },
                (None, _) => return Ok(None),
            };
            // One more, for null.
            let radix = count + 1;
            if combinations * radix > CODES_MAX {
                return Ok(None);
            }
            combinations *= radix;
            // A code that no entry has, as only damage makes it, must not reach another group's place, or beyond the table.
            let last = count as u16;
            let null = |at: u16| {
                view.nulls
                    .is_some_and(|nulls| nulls[usize::from(at) / 8] >> (at % 8) & 1 == 1)
            };
            match (codes.width(), view.nulls) {
                (0, None) => combined.iter_mut().for_each(|code| *code *= radix as u16),
                (1, None) => {
                    let bytes = codes.bytes();
                    for (code, at) in combined.iter_mut().zip(rows.positions) {
                        let own = bytes.get(usize::from(*at)).copied().unwrap_or(0);
                        *code = *code * radix as u16 + u16::from(own).min(last);
                    }
                }
                _ => {
                    for (code, at) in combined.iter_mut().zip(rows.positions) {
                        let own = if null(*at) {
                            last
                        } else {
                            codes.get(usize::from(*at)).min(u128::from(last)) as u16
                        };
                        *code = *code * radix as u16 + own;
                    }
                }
            }
        }
        const UNKNOWN: u32 = u32::MAX;
        let mut table = vec![UNKNOWN; combinations];
        let mut groups = Vec::with_capacity(combined.len());
        for (code, at) in combined.iter().zip(rows.positions) {
            let place = &mut table[usize::from(*code)];
            if *place == UNKNOWN {
                let mut keys = Vec::with_capacity(plan.keys.len());
                for (key, data_type) in plan.keys.iter().zip(types) {
                    let row =
                        |column: usize| rows.page.value(usize::from(*at), rows.places[column]);
                    let value = on_values(key.root(), &row, &mut *long, |typed, row| {
                        typed.evaluate(row).map(Datum::into_owned)
                    })?;
                    keys.push(value_of(value, *data_type)?);
                }
                *place = self.of(types, keys);
            }
            groups.push(*place);
        }
        Ok(Some(groups))
    }
}

/// Of floats that are equal, one: which of them a group met first depends on the order of the pages.
pub(crate) fn make_canonical(value: &mut Value) {
    match value {
        Value::Float64(v) if v.is_nan() => *v = f64::NAN,
        Value::Float64(v) if *v == 0.0 => *v = 0.0,
        Value::Float32(v) if v.is_nan() => *v = f32::NAN,
        Value::Float32(v) if *v == 0.0 => *v = 0.0,
        _ => {}
    }
}

/// A result as a stored value.
pub(crate) fn value_of(datum: Datum<'_>, data_type: DataType) -> Result<Value, ScanError> {
    datum.into_value(data_type).map_err(eval_error)
}

pub(crate) fn eval_error(source: EvalError) -> ScanError {
    ScanError::Eval {
        expression: "result".into(),
        source,
    }
}
