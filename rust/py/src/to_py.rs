//! Stored values as Python objects.

use aurora_page::{DataType, ValueRef};
use aurora_scan::decimal::format_decimal;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyBool, PyBytes, PyFloat, PyString};

use crate::pytypes::types;

/// Days from 0001-01-01 (ordinal 1) to 1970-01-01.
pub const EPOCH_ORDINAL: i32 = 719_163;
/// Microseconds of a second and of a day.
const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// The Python object of a stored value. Values in overflow pages are fetched by the caller first.
pub fn to_py<'py>(
    py: Python<'py>,
    value: ValueRef<'_>,
    data_type: DataType,
) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        ValueRef::Null => py.None().into_bound(py),
        ValueRef::Bool(v) => PyBool::new(py, v).to_owned().into_any(),
        ValueRef::Int(v) => int_to_py(py, v)?,
        ValueRef::Float32(v) => PyFloat::new(py, f64::from(v)).into_any(),
        ValueRef::Float64(v) => PyFloat::new(py, v).into_any(),
        ValueRef::Text(v) => PyString::new(py, v).into_any(),
        ValueRef::Bytes(v) => PyBytes::new(py, v).into_any(),
        ValueRef::Decimal(v) => decimal_to_py(py, v, data_type)?,
        ValueRef::Date(v) => {
            let days = v
                .checked_add(EPOCH_ORDINAL)
                .ok_or_else(|| out_of_range("date", i64::from(v)))?;
            types(py)?.date_from_ordinal.bind(py).call1((days,))?
        }
        ValueRef::Time(v) => time_to_py(py, v)?,
        ValueRef::Timestamp(v) => timestamp_to_py(py, v, data_type)?,
        ValueRef::Uuid(v) => uuid_to_py(py, v)?,
        ValueRef::Json(v) => types(py)?.json_loads.bind(py).call1((v,))?,
        ValueRef::Overflow(v) => {
            return Err(PyValueError::new_err(format!(
                "a value of {} bytes was not fetched",
                v.len
            )));
        }
    })
}

fn int_to_py(py: Python<'_>, v: i64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the interpreter is attached; the result is a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyLong_FromLongLong(v)) }
}

fn decimal_to_py(
    py: Python<'_>,
    unscaled: i128,
    data_type: DataType,
) -> PyResult<Bound<'_, PyAny>> {
    let scale = if let DataType::Decimal { scale, .. } = data_type {
        scale
    } else {
        0
    };
    types(py)?
        .decimal
        .bind(py)
        .call1((format_decimal(unscaled, scale),))
}

fn time_to_py(py: Python<'_>, us: i64) -> PyResult<Bound<'_, PyAny>> {
    let seconds = us / SECOND_US;
    types(py)?.time.bind(py).call1((
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        us % SECOND_US,
    ))
}

/// The `datetime` of microseconds since 1970: aware and in UTC if the column is zoned.
pub fn timestamp_to_py(py: Python<'_>, us: i64, data_type: DataType) -> PyResult<Bound<'_, PyAny>> {
    let types = types(py)?;
    let zoned = matches!(data_type, DataType::Timestamp { zoned: true });
    let (days, rest) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
    let delta = types
        .timedelta
        .bind(py)
        .call1((days, rest / SECOND_US, rest % SECOND_US))?;
    let epoch = if zoned {
        &types.epoch_utc
    } else {
        &types.epoch
    };
    epoch.bind(py).add(delta)
}

/// What `uuid.UUID` keeps in its slots, set past its constructor, which costs as much as the whole read.
struct UuidMaker {
    class: Py<PyAny>,
    int: Py<PyAny>,
    is_safe: Py<PyAny>,
    unknown: Py<PyAny>,
}

static UUID_MAKER: PyOnceLock<Option<UuidMaker>> = PyOnceLock::new();

fn uuid_to_py(py: Python<'_>, bytes: [u8; 16]) -> PyResult<Bound<'_, PyAny>> {
    let number = u128::from_be_bytes(bytes);
    match UUID_MAKER.get_or_init(py, || UuidMaker::load(py).ok()) {
        Some(maker) => maker.make(py, number),
        None => types(py)?
            .uuid
            .bind(py)
            .call((), Some(&[("int", number)].into_py_dict(py)?)),
    }
}

impl UuidMaker {
    fn load(py: Python<'_>) -> PyResult<UuidMaker> {
        let module = py.import("uuid")?;
        let class = module.getattr("UUID")?;
        let maker = UuidMaker {
            int: class.getattr("int")?.getattr("__set__")?.unbind(),
            is_safe: class.getattr("is_safe")?.getattr("__set__")?.unbind(),
            unknown: module.getattr("SafeUUID")?.getattr("unknown")?.unbind(),
            class: class.clone().unbind(),
        };
        // Trusted only if it makes what the constructor makes.
        let ours = maker.make(py, 7)?;
        let theirs = class.call((), Some(&[("int", 7)].into_py_dict(py)?))?;
        if ours.eq(&theirs)? && ours.str()?.to_str()? == theirs.str()?.to_str()? {
            Ok(maker)
        } else {
            Err(PyValueError::new_err("uuid.UUID has other slots"))
        }
    }

    fn make<'py>(&self, py: Python<'py>, number: u128) -> PyResult<Bound<'py, PyAny>> {
        let class = self.class.bind(py);
        let made = class.call_method1(intern!(py, "__new__"), (class,))?;
        self.int.bind(py).call1((&made, number))?;
        self.is_safe.bind(py).call1((&made, &self.unknown))?;
        Ok(made)
    }
}

fn out_of_range(what: &str, value: i64) -> PyErr {
    PyValueError::new_err(format!(
        "stored {what} {value} is outside what Python's {what} can hold"
    ))
}
