//! Python objects as values of columns, checked: each refusal names the column, what it takes and what it got.

use aurora_page::{Column, DataType, KeyBuf, Value, ValueRef, encode_part};
use aurora_scan::decimal::{DecimalError, parse_decimal};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyFloat, PyInt, PyMemoryView, PyString};

use crate::errors::{Raise, describe};
use crate::pytypes::{PyTypes, types};
use crate::to_py::EPOCH_ORDINAL;

/// The value of an object in a column.
pub fn to_value(column: &Column, object: &Bound<'_, PyAny>) -> PyResult<Value> {
    if object.is_none() {
        return if column.nullable {
            Ok(Value::Null)
        } else {
            Err(null(column, object))
        };
    }
    match column.data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            int(column, object).map(Value::Int)
        }
        DataType::Text => text(column, object).map(|text| Value::Text(text.to_owned())),
        DataType::Float64 => float(column, object).map(Value::Float64),
        DataType::Float32 => float32(column, object).map(Value::Float32),
        DataType::Bool => match object.cast::<PyBool>() {
            Ok(value) => Ok(Value::Bool(value.is_true())),
            Err(_) => Err(mismatch(column, object, "bool")),
        },
        DataType::Decimal { precision, scale } => {
            decimal(column, object, precision, scale).map(Value::Decimal)
        }
        DataType::Bytes => bytes(column, object).map(Value::Bytes),
        DataType::Date => date(column, object).map(Value::Date),
        DataType::Time => time(column, object).map(Value::Time),
        DataType::Timestamp { zoned } => timestamp(column, object, zoned).map(Value::Timestamp),
        DataType::Uuid => uuid(column, object).map(Value::Uuid),
        DataType::Json => json(column, object).map(Value::Json),
    }
}

/// Appends the key part of an object, without a value of its own for the types that most keys have.
pub fn push_key_part(
    out: &mut KeyBuf,
    column: &Column,
    descending: bool,
    object: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let mut push = |value: ValueRef<'_>| {
        encode_part(out, column.data_type, value, column.nullable, descending)
    };
    match column.data_type {
        DataType::Int64 | DataType::Int32 if !object.is_none() => {
            push(ValueRef::Int(int(column, object)?))
        }
        DataType::Text if !object.is_none() => push(ValueRef::Text(text(column, object)?)),
        _ => push(to_value(column, object)?.as_ref()),
    }
    Ok(())
}

fn int(column: &Column, object: &Bound<'_, PyAny>) -> PyResult<i64> {
    if object.is_exact_instance_of::<PyInt>() {
        return exact_int(column, object);
    }
    if object.is_instance_of::<PyBool>() || object.is_instance_of::<PyFloat>() {
        return Err(mismatch(column, object, "int"));
    }
    // NumPy's integers and IntEnum come this way.
    match object.call_method0(intern!(object.py(), "__index__")) {
        Ok(index) => exact_int(column, &index),
        Err(_) => Err(mismatch(column, object, "int")),
    }
}

fn exact_int(column: &Column, object: &Bound<'_, PyAny>) -> PyResult<i64> {
    let mut overflow = 0;
    // SAFETY: the object is an int and the interpreter is attached; an overflow is reported through the flag.
    let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(object.as_ptr(), &raw mut overflow) };
    let (min, max) = column.data_type.int_range().unwrap_or((i64::MIN, i64::MAX));
    if overflow != 0 || !(min..=max).contains(&value) {
        return Err(out_of_range(
            column,
            object,
            &format!("an int from {min} to {max}"),
        ));
    }
    Ok(value)
}

fn text<'a>(column: &Column, object: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let Ok(text) = object.cast::<PyString>() else {
        return Err(mismatch(column, object, "str"));
    };
    text.to_str()
        .map_err(|_| out_of_range(column, object, "text without lone surrogates"))
}

fn float(column: &Column, object: &Bound<'_, PyAny>) -> PyResult<f64> {
    if let Ok(value) = object.cast::<PyFloat>() {
        return Ok(value.value());
    }
    let is_number =
        object.hasattr(intern!(object.py(), "__float__"))? || object.is_instance_of::<PyInt>();
    let is_exact = object.is_instance(types(object.py())?.decimal.bind(object.py()))?;
    if !is_number || is_exact || object.is_instance_of::<PyBool>() {
        return Err(mismatch(column, object, "float"));
    }
    object
        .extract()
        .map_err(|_| out_of_range(column, object, "a float"))
}

fn float32(column: &Column, object: &Bound<'_, PyAny>) -> PyResult<f32> {
    let wide = float(column, object)?;
    let narrow = wide as f32;
    if wide.is_finite() && narrow.is_infinite() {
        return Err(out_of_range(column, object, "a float of 32 bits"));
    }
    Ok(narrow)
}

fn decimal(column: &Column, object: &Bound<'_, PyAny>, precision: u8, scale: u8) -> PyResult<i128> {
    let py = object.py();
    let is_decimal = object.is_instance(types(py)?.decimal.bind(py))?;
    if !is_decimal && (!object.is_instance_of::<PyInt>() || object.is_instance_of::<PyBool>()) {
        return Err(mismatch(column, object, "Decimal"));
    }
    let text = object.str()?;
    parse_decimal(text.to_str()?, precision, scale).map_err(|error| {
        let expected = match error {
            DecimalError::NotFinite => "a finite Decimal".to_owned(),
            DecimalError::Scale => format!("a Decimal of at most {scale} digits after the point"),
            DecimalError::Precision => format!(
                "a Decimal of at most {} digits before the point",
                precision - scale
            ),
        };
        out_of_range(column, object, &expected)
    })
}

fn bytes(column: &Column, object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(bytes.as_bytes().to_vec());
    }
    if let Ok(array) = object.cast::<PyByteArray>() {
        return Ok(array.to_vec());
    }
    if object.is_instance_of::<PyMemoryView>() {
        let copy = object.call_method0(intern!(object.py(), "tobytes"))?;
        return Ok(copy.cast::<PyBytes>()?.as_bytes().to_vec());
    }
    Err(mismatch(column, object, "bytes"))
}

fn date(column: &Column, object: &Bound<'_, PyAny>) -> PyResult<i32> {
    let py = object.py();
    let types = types(py)?;
    if !object.is_instance(types.date.bind(py))? || object.is_instance(types.datetime.bind(py))? {
        return Err(mismatch(column, object, "date"));
    }
    let ordinal: i32 = object.call_method0(intern!(py, "toordinal"))?.extract()?;
    Ok(ordinal - EPOCH_ORDINAL)
}

fn time(column: &Column, object: &Bound<'_, PyAny>) -> PyResult<i64> {
    let py = object.py();
    if !object.is_instance(types(py)?.time.bind(py))? {
        return Err(mismatch(column, object, "time"));
    }
    if !object.getattr(intern!(py, "tzinfo"))?.is_none() {
        return Err(out_of_range(column, object, "a time without tzinfo"));
    }
    let part = |name: &Bound<'_, PyString>| object.getattr(name)?.extract::<i64>();
    let seconds = part(intern!(py, "hour"))? * 3600
        + part(intern!(py, "minute"))? * 60
        + part(intern!(py, "second"))?;
    Ok(seconds * 1_000_000 + part(intern!(py, "microsecond"))?)
}

fn timestamp(column: &Column, object: &Bound<'_, PyAny>, zoned: bool) -> PyResult<i64> {
    let py = object.py();
    let types = types(py)?;
    if !object.is_instance(types.datetime.bind(py))? {
        return Err(mismatch(column, object, "datetime"));
    }
    let aware = !object.call_method0(intern!(py, "utcoffset"))?.is_none();
    match (zoned, aware) {
        (true, false) => Err(out_of_range(
            column,
            object,
            "an aware datetime (with tzinfo)",
        )),
        (false, true) => Err(out_of_range(
            column,
            object,
            "a naive datetime (without tzinfo)",
        )),
        _ => {
            let us = datetime_us(object, types, aware)?;
            // The first and the last hours of what Python can hold lie outside of it in UTC, if the zone is another.
            if DATETIME_US.contains(&us) {
                Ok(us)
            } else {
                Err(out_of_range(
                    column,
                    object,
                    "a moment within the years 1 to 9999 of UTC",
                ))
            }
        }
    }
}

/// What `datetime` can hold, in microseconds since 1970.
const DATETIME_US: std::ops::RangeInclusive<i64> =
    -62_135_596_800_000_000..=253_402_300_799_999_999;

/// Microseconds since 1970 of a `datetime`; in UTC if it is aware.
pub fn datetime_us(object: &Bound<'_, PyAny>, types: &PyTypes, aware: bool) -> PyResult<i64> {
    let py = object.py();
    let epoch = if aware {
        &types.epoch_utc
    } else {
        &types.epoch
    };
    let delta = object.sub(epoch.bind(py))?;
    let part = |name: &Bound<'_, PyString>| delta.getattr(name)?.extract::<i64>();
    let seconds = part(intern!(py, "days"))? * 86_400 + part(intern!(py, "seconds"))?;
    Ok(seconds * 1_000_000 + part(intern!(py, "microseconds"))?)
}

fn uuid(column: &Column, object: &Bound<'_, PyAny>) -> PyResult<[u8; 16]> {
    let py = object.py();
    if !object.is_instance(types(py)?.uuid.bind(py))? {
        return Err(mismatch(column, object, "uuid.UUID"));
    }
    let number: u128 = object.getattr(intern!(py, "int"))?.extract()?;
    Ok(number.to_be_bytes())
}

fn json(column: &Column, object: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = object.py();
    match types(py)?.json_dumps.bind(py).call1((object,)) {
        Ok(text) => Ok(text.cast::<PyString>()?.to_str()?.to_owned()),
        // NaN, an infinity, or an object that is within itself.
        Err(error) if error.is_instance_of::<PyValueError>(py) => Err(out_of_range(
            column,
            object,
            "what JSON can say: no NaN, no infinity, nothing within itself",
        )),
        Err(_) => Err(mismatch(column, object, "what json.dumps takes")),
    }
}

fn null(column: &Column, object: &Bound<'_, PyAny>) -> PyErr {
    refuse(
        "NullViolation",
        column,
        object,
        &column.data_type.to_string(),
    )
}

fn mismatch(column: &Column, object: &Bound<'_, PyAny>, expected: &str) -> PyErr {
    let or_none = if column.nullable { " or None" } else { "" };
    refuse(
        "TypeMismatch",
        column,
        object,
        &format!("{expected}{or_none} ({})", column.data_type),
    )
}

fn out_of_range(column: &Column, object: &Bound<'_, PyAny>, expected: &str) -> PyErr {
    refuse("ValueOutOfRange", column, object, expected)
}

fn refuse(
    class: &'static str,
    column: &Column,
    object: &Bound<'_, PyAny>,
    expected: &str,
) -> PyErr {
    let got = describe(object);
    Raise::new(
        object.py(),
        class,
        format!("column {:?}: expected {expected}, got {got}", column.name),
    )
    .with("column", &column.name)
    .with("expected", expected)
    .with("got", got)
    .err()
}
