//! The Python types and functions that conversions need, looked up once.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDateTime, PyDict, PyTzInfo};

/// Classes and functions of the standard library, and one of the package.
pub struct PyTypes {
    pub decimal: Py<PyAny>,
    pub date: Py<PyAny>,
    pub date_from_ordinal: Py<PyAny>,
    pub time: Py<PyAny>,
    pub datetime: Py<PyAny>,
    pub timedelta: Py<PyAny>,
    pub epoch: Py<PyAny>,
    pub epoch_utc: Py<PyAny>,
    pub uuid: Py<PyAny>,
    pub json_dumps: Py<PyAny>,
    pub json_loads: Py<PyAny>,
    /// A default that is made for each row.
    pub default: Py<PyAny>,
}

static TYPES: PyOnceLock<PyTypes> = PyOnceLock::new();

/// The types, looked up at the first use.
pub fn types(py: Python<'_>) -> PyResult<&'static PyTypes> {
    TYPES.get_or_try_init(py, || PyTypes::load(py))
}

/// `json.dumps` that refuses what no JSON can say: NaN and the infinities.
fn json_encoder(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let options = PyDict::new(py);
    options.set_item("allow_nan", false)?;
    let class = py.import("json")?.getattr("JSONEncoder")?;
    let encoder = class.call((), Some(&options))?;
    encoder.getattr("encode").map(Bound::unbind)
}

impl PyTypes {
    fn load(py: Python<'_>) -> PyResult<PyTypes> {
        let get = |module: &str, name: &str| py.import(module)?.getattr(name).map(Bound::unbind);
        let date = get("datetime", "date")?;
        let utc = PyTzInfo::utc(py)?.to_owned();
        Ok(PyTypes {
            decimal: get("decimal", "Decimal")?,
            date_from_ordinal: date.getattr(py, intern!(py, "fromordinal"))?,
            date,
            time: get("datetime", "time")?,
            datetime: get("datetime", "datetime")?,
            timedelta: get("datetime", "timedelta")?,
            epoch: PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, None)?
                .into_any()
                .unbind(),
            epoch_utc: PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, Some(&utc))?
                .into_any()
                .unbind(),
            uuid: get("uuid", "UUID")?,
            json_dumps: json_encoder(py)?,
            json_loads: get("json", "loads")?,
            default: get("aurora_engine.rules", "Default")?,
        })
    }
}
