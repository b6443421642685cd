//! Which rows of a page pass: conditions on packed columns as they lie, on dictionaries once per entry, on rows where nothing
//! else helps. And which pages need not be looked at, by their zone maps.

use aurora_page::{SealedData, ValueRef, zone_prefix};

use crate::conditions::Test;
use crate::error::{ReadLong, ScanError};
use crate::expr::{Comparison, Datum, Kind, LikePattern, Node, Typed};
use crate::on_row::on_row;
use crate::vector::Rows;
use crate::view::{ColumnView, Lanes, PageView, extend};

/// The zone of a column as numbers; `None` if it says nothing about them.
pub(crate) fn number_zone(column: &ColumnView<'_>) -> Option<(i128, i128)> {
    let (low, high) = column.zone;
    match Kind::of(column.data_type) {
        Kind::Bool => Some((low.into(), high.into())),
        Kind::Int | Kind::Decimal { .. } | Kind::Date | Kind::Time | Kind::Timestamp { .. } => {
            let number = |prefix: u64| i128::from((prefix ^ 1 << 63) as i64);
            let (low, high) = (number(low), number(high));
            // Decimals beyond 64 bits are at the ends.
            let low = if low == i64::MIN.into() {
                i128::MIN
            } else {
                low
            };
            let high = if high == i64::MAX.into() {
                i128::MAX
            } else {
                high
            };
            Some((low, high))
        }
        _ => None,
    }
}

impl Test {
    pub(crate) fn column(&self) -> Option<usize> {
        match self {
            Test::Range { column, .. }
            | Test::Member { column, .. }
            | Test::Like { column, .. }
            | Test::Single { column, .. } => Some(*column),
            Test::General(_) => None,
        }
    }

    /// False if the zone says that no value passes.
    pub(crate) fn may_pass(&self, column: &ColumnView<'_>) -> bool {
        // Nothing but nulls: no comparison is true.
        let empty = column.zone.0 > column.zone.1;
        match self {
            Test::Range {
                low,
                high,
                negated: false,
                ..
            } => {
                if empty || low > high {
                    return false;
                }
                number_zone(column).is_none_or(|(min, max)| *low <= max && min <= *high)
            }
            Test::Range { .. } => !empty,
            Test::Member { numbers, .. } => {
                !empty
                    && number_zone(column).is_none_or(|(min, max)| {
                        numbers.iter().any(|number| (min..=max).contains(number))
                    })
            }
            Test::Like { .. } => !empty,
            Test::Single { condition, .. } => text_may_pass(condition, column),
            Test::General(_) => true,
        }
    }

    /// Takes the positions that do not pass out of the mask.
    pub(crate) fn apply(
        &self,
        page: &PageView<'_>,
        places: &[Option<usize>],
        mask: &mut [u8],
        long: ReadLong<'_>,
    ) -> Result<(), ScanError> {
        match self {
            Test::Range {
                column,
                low,
                high,
                negated,
            } => {
                let Some(place) = places[*column] else {
                    mask.fill(0);
                    return Ok(());
                };
                let view = page.column(place);
                clear_nulls(&view, mask);
                if let Some(lanes) = view.lanes {
                    keep_range(&lanes, *low, *high, *negated, mask);
                }
                Ok(())
            }
            Test::Member { column, numbers } => {
                let Some(place) = places[*column] else {
                    mask.fill(0);
                    return Ok(());
                };
                let view = page.column(place);
                clear_nulls(&view, mask);
                if let Some(lanes) = view.lanes {
                    for (at, place) in mask
                        .iter_mut()
                        .enumerate()
                        .filter(|(_, place)| **place != 0)
                    {
                        *place = u8::from(numbers.contains(&lanes.get(at)));
                    }
                }
                Ok(())
            }
            Test::Like { column, pattern } => {
                let Some(place) = places[*column] else {
                    mask.fill(0);
                    return Ok(());
                };
                by_pattern(page, place, pattern, mask, long)
            }
            Test::Single { column, condition } => {
                if let (Some(place), PageView::Sealed(_)) = (places[*column], page) {
                    let view = page.column(place);
                    if by_dictionary(&view, page, places, condition, mask, &mut *long)? {
                        return Ok(());
                    }
                }
                by_row(condition, page, places, mask, long)
            }
            Test::General(condition) => {
                if let Node::Compare(comparison, left, right) = &condition.node {
                    let positions: Vec<u16> = (0u16..)
                        .zip(&*mask)
                        .filter(|(_, selected)| **selected != 0)
                        .map(|(at, _)| at)
                        .collect();
                    let rows = Rows {
                        page,
                        places,
                        positions: &positions,
                    };
                    if let Some(passes) = rows.compare(*comparison, left, right)? {
                        for (at, passes) in positions.iter().zip(passes) {
                            mask[usize::from(*at)] = u8::from(passes);
                        }
                        return Ok(());
                    }
                }
                by_row(condition, page, places, mask, long)
            }
        }
    }
}

/// Keeps positions whose text is like a pattern; of a dictionary, each entry in use is looked at once.
fn by_pattern(
    page: &PageView<'_>,
    place: usize,
    pattern: &LikePattern,
    mask: &mut [u8],
    long: ReadLong<'_>,
) -> Result<(), ScanError> {
    let view = page.column(place);
    let dictionary = view.sealed.as_ref().and_then(|sealed| match sealed.data {
        SealedData::VarDictionary { codes, len, .. } => Some((codes, len)),
        _ => None,
    });
    let mut known: Vec<Option<bool>> = vec![None; dictionary.map_or(0, |(_, len)| len)];
    for (at, place_of) in mask
        .iter_mut()
        .enumerate()
        .filter(|(_, place)| **place != 0)
    {
        let code = dictionary.map(|(codes, _)| codes.get(at) as usize);
        let passes = match page.value(at, Some(place)) {
            ValueRef::Text(text) => match code.and_then(|code| known.get_mut(code)) {
                Some(known) => *known.get_or_insert_with(|| pattern.matches(text)),
                None => pattern.matches(text),
            },
            ValueRef::Overflow(reference) => {
                let bytes = long(reference).map_err(ScanError::Long)?;
                pattern.matches(&String::from_utf8_lossy(&bytes))
            }
            _ => false,
        };
        *place_of = u8::from(passes);
    }
    Ok(())
}

fn clear_nulls(view: &ColumnView<'_>, mask: &mut [u8]) {
    let Some(nulls) = view.nulls else { return };
    for (eight, bits) in mask.chunks_mut(8).zip(nulls) {
        if *bits != 0 {
            for (at, place) in eight.iter_mut().enumerate() {
                *place &= !(bits >> at) & 1;
            }
        }
    }
}

/// Keeps positions whose number is in the range: lane by lane as wide as they lie, so that the compiler makes vectors of it.
pub(crate) fn keep_range(lanes: &Lanes<'_>, low: i128, high: i128, negated: bool, mask: &mut [u8]) {
    macro_rules! lanes_within {
        ($type:ty, $unsigned:ty, $bytes:expr, $low:expr, $high:expr) => {{
            // Beyond the ends of the lane's type nothing can be; an empty range keeps nothing.
            let (min, max) = (i128::from(<$type>::MIN), i128::from(<$type>::MAX));
            let (low, high) = ($low.max(min), $high.min(max));
            if low > high {
                if !negated {
                    mask.fill(0);
                }
                return;
            }
            let (start, span) = (low as $type, (high - low) as $unsigned);
            let flip = u8::from(negated);
            let (values, _) = $bytes.as_chunks::<{ size_of::<$type>() }>();
            for (place, lane) in mask.iter_mut().zip(values) {
                let distance = <$type>::from_le_bytes(*lane).wrapping_sub(start) as $unsigned;
                *place &= u8::from(distance <= span) ^ flip;
            }
        }};
    }
    match *lanes {
        Lanes::Offset { base, width, bytes } => {
            // Saturation keeps what is beyond all lanes beyond them.
            let (whole_low, whole_high) = (low, high);
            let (low, high) = (low.saturating_sub(base), high.saturating_sub(base));
            match width {
                0 => {
                    if (low..=high).contains(&0) == negated {
                        mask.fill(0);
                    }
                }
                1 => lanes_within!(u8, u8, bytes, low, high),
                2 => lanes_within!(u16, u16, bytes, low, high),
                4 => lanes_within!(u32, u32, bytes, low, high),
                8 => lanes_within!(u64, u64, bytes, low, high),
                _ => keep_each(lanes, whole_low, whole_high, negated, mask),
            }
        }
        Lanes::Native { width, bytes } => match width {
            1 => lanes_within!(i8, u8, bytes, low, high),
            2 => lanes_within!(i16, u16, bytes, low, high),
            4 => lanes_within!(i32, u32, bytes, low, high),
            8 => lanes_within!(i64, u64, bytes, low, high),
            _ => keep_each(lanes, low, high, negated, mask),
        },
        Lanes::Dictionary { codes, values, len } => {
            let passes: Vec<bool> = (0..len)
                .map(|code| {
                    let value = extend(values.get(code), values.width());
                    (low..=high).contains(&value) != negated
                })
                .collect();
            for (at, place) in mask.iter_mut().enumerate() {
                let code = codes.get(at) as usize;
                *place &= u8::from(passes.get(code).copied().unwrap_or(false));
            }
        }
    }
}

fn keep_each(lanes: &Lanes<'_>, low: i128, high: i128, negated: bool, mask: &mut [u8]) {
    for (at, place) in mask.iter_mut().enumerate() {
        *place &= u8::from((low..=high).contains(&lanes.get(at)) != negated);
    }
}

/// A comparison with a constant text, by the first eight bytes.
fn text_may_pass(condition: &Typed, column: &ColumnView<'_>) -> bool {
    let Node::Compare(comparison, left, right) = &condition.node else {
        return true;
    };
    let (comparison, literal) = match (&left.node, &right.node) {
        (Node::Column(_), Node::Literal(literal)) => (*comparison, literal),
        (Node::Literal(literal), Node::Column(_)) => (comparison.mirrored(), literal),
        _ => return true,
    };
    let prefix = match literal {
        Datum::Text(text) => zone_prefix(ValueRef::Text(text)),
        Datum::Bytes(bytes) => zone_prefix(ValueRef::Bytes(bytes)),
        Datum::Uuid(bytes) => zone_prefix(ValueRef::Uuid(*bytes)),
        _ => return true,
    };
    let (Some(prefix), (min, max)) = (prefix, column.zone) else {
        return true;
    };
    if min > max {
        return false;
    }
    match comparison {
        Comparison::Eq => (min..=max).contains(&prefix),
        Comparison::Lt | Comparison::Le => min <= prefix,
        Comparison::Gt | Comparison::Ge => max >= prefix,
        Comparison::Ne => true,
    }
}

/// Evaluates a condition once per entry of the column's dictionary; false if it has none that helps.
fn by_dictionary(
    view: &ColumnView<'_>,
    page: &PageView<'_>,
    places: &[Option<usize>],
    condition: &Typed,
    mask: &mut [u8],
    long: ReadLong<'_>,
) -> Result<bool, ScanError> {
    let Some(sealed) = &view.sealed else {
        return Ok(false);
    };
    let (codes, len) = match sealed.data {
        SealedData::Dictionary { codes, len, .. }
        | SealedData::VarDictionary { codes, len, .. } => (codes, len),
        SealedData::Packed { .. } | SealedData::Var { .. } => return Ok(false),
    };
    // 0 not yet known, 1 passes, 2 does not.
    let mut known = vec![0u8; len + 1];
    for (at, place) in mask.iter_mut().enumerate() {
        if *place == 0 {
            continue;
        }
        let code = if sealed.is_null(at) {
            len
        } else {
            codes.get(at) as usize
        };
        let Some(answer) = known.get_mut(code) else {
            continue;
        };
        if *answer == 0 {
            let passes = on_row(condition, page, places, at, &mut *long, |condition, row| {
                condition.test(row)
            })?;
            *answer = if passes == Some(true) { 1 } else { 2 };
        }
        *place = u8::from(*answer == 1);
    }
    Ok(true)
}

fn by_row(
    condition: &Typed,
    page: &PageView<'_>,
    places: &[Option<usize>],
    mask: &mut [u8],
    long: ReadLong<'_>,
) -> Result<(), ScanError> {
    for (at, place) in mask.iter_mut().enumerate() {
        if *place != 0 {
            let passes = on_row(condition, page, places, at, &mut *long, |condition, row| {
                condition.test(row)
            })?;
            *place = u8::from(passes == Some(true));
        }
    }
    Ok(())
}
