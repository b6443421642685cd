//! The layout of a row class: how its objects are made from stored values and read back, slot by slot.
//!
//! A row class keeps every column in a slot. Setting a slot through its descriptor's own function skips the class's
//! `__setattr__` (which refuses) and every lookup by name: making a row of three columns takes about 100 ns.

use aurora_page::Schema;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};

use crate::errors::Raise;

/// A row class and the slots of its columns, in the order of the schema.
pub struct RowShape {
    class: Py<PyType>,
    slots: Vec<Py<PyAny>>,
    get: ffi::descrgetfunc,
    set: ffi::descrsetfunc,
}

impl RowShape {
    /// The layout of a class, which must have a slot for every column of the schema.
    pub fn new(class: &Bound<'_, PyType>, schema: &Schema) -> PyResult<RowShape> {
        let py = class.py();
        let slots = schema
            .columns()
            .iter()
            .map(|column| Ok(slot(class, &column.name)?.unbind()))
            .collect::<PyResult<Vec<Py<PyAny>>>>()?;
        let Some(first) = slots.first() else {
            return Err(PyTypeError::new_err("a row class has columns"));
        };
        let kind = first.bind(py).get_type();
        if slots.iter().any(|slot| !slot.bind(py).get_type().is(&kind))
            || kind.name()? != "member_descriptor"
        {
            return Err(PyTypeError::new_err(
                "a row class keeps every column in a slot",
            ));
        }
        let (get, set) = descriptor_functions(&kind)?;
        Ok(RowShape {
            class: class.clone().unbind(),
            slots,
            get,
            set,
        })
    }

    /// The row class.
    pub fn class<'py>(&self, py: Python<'py>) -> &Bound<'py, PyType> {
        self.class.bind(py)
    }

    /// A row whose columns are still to be set. It must not be given away before each is.
    #[inline]
    pub fn start<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the class is a heap type whose objects have no state but their slots, which allocation zeroes.
        unsafe {
            Bound::from_owned_ptr_or_err(
                py,
                ffi::PyType_GenericAlloc(self.class.as_ptr().cast(), 0),
            )
        }
    }

    /// Sets one column of a new row.
    #[inline]
    pub fn set(
        &self,
        row: &Bound<'_, PyAny>,
        index: usize,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        // SAFETY: `set` is the setter of this descriptor's type, the row is an object of the descriptor's class.
        if unsafe { (self.set)(self.slots[index].as_ptr(), row.as_ptr(), value.as_ptr()) } == 0 {
            Ok(())
        } else {
            Err(PyErr::fetch(row.py()))
        }
    }

    /// The object in one column of a row.
    pub fn read<'py>(&self, row: &Bound<'py, PyAny>, index: usize) -> PyResult<Bound<'py, PyAny>> {
        let py = row.py();
        let slot = &self.slots[index];
        // SAFETY: `get` is the getter of this descriptor's type; it checks the object's class itself.
        unsafe {
            Bound::from_owned_ptr_or_err(
                py,
                (self.get)(slot.as_ptr(), row.as_ptr(), row.get_type_ptr().cast()),
            )
        }
    }

    /// Refuses an object that is not a row of the class.
    pub fn check(&self, row: &Bound<'_, PyAny>) -> PyResult<()> {
        let class = self.class.bind(row.py());
        if row.get_type().is(class) || row.is_instance(class)? {
            return Ok(());
        }
        let expected = format!("a row of class {}", class.name()?);
        let got = row.get_type().name()?.to_string();
        Err(Raise::new(
            row.py(),
            "TypeMismatch",
            format!("expected {expected}, got {got}"),
        )
        .with("expected", expected)
        .with("got", got)
        .err())
    }
}

/// The descriptor of a column's slot: under the column's name, or another where that is no attribute.
pub fn slot<'py>(class: &Bound<'py, PyType>, column: &str) -> PyResult<Bound<'py, PyAny>> {
    let hidden = class.getattr(intern!(class.py(), "__slot_names__"))?;
    match hidden.cast::<PyDict>()?.get_item(column)? {
        Some(slot) => class.getattr(slot.cast::<PyString>()?),
        None => class.getattr(column),
    }
}

fn descriptor_functions(
    kind: &Bound<'_, PyType>,
) -> PyResult<(ffi::descrgetfunc, ffi::descrsetfunc)> {
    let kind = kind.as_type_ptr();
    // SAFETY: the type is alive; the slots hold functions of these signatures, or null.
    let functions = unsafe {
        let get = ffi::PyType_GetSlot(kind, ffi::Py_tp_descr_get);
        let set = ffi::PyType_GetSlot(kind, ffi::Py_tp_descr_set);
        (
            std::mem::transmute::<*mut std::ffi::c_void, Option<ffi::descrgetfunc>>(get),
            std::mem::transmute::<*mut std::ffi::c_void, Option<ffi::descrsetfunc>>(set),
        )
    };
    match functions {
        (Some(get), Some(set)) => Ok((get, set)),
        _ => Err(PyTypeError::new_err(
            "a slot's descriptor can be read and set",
        )),
    }
}
