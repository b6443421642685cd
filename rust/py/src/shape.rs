//! What the rows of a table are in Python, and how they are made from stored values: typed rows, dicts, tuples, models.
//!
//! A row class keeps every column in a slot. Setting a slot through its descriptor's own function skips the class's
//! `__setattr__` (which refuses) and every lookup by name: making a row of three columns takes about 100 ns.

use aurora_page::{Column, Schema};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::errors::Raise;
use crate::pytypes::types;

/// How rows are made of some columns of a table, in this order.
pub struct RowShape {
    class: Py<PyType>,
    /// Places of the columns in the table's schema.
    columns: Vec<u16>,
    /// Whether these are all columns, in the order of the schema.
    whole: bool,
    names: Vec<Py<PyString>>,
    kind: Kind,
}

enum Kind {
    /// A subclass of `aurora_engine.Row`.
    Slots(Slots),
    Dict,
    Tuple,
    /// A pydantic model, made without validation: what is stored was checked when it was written.
    Model,
}

struct Slots {
    slots: Vec<Py<PyAny>>,
    get: ffi::descrgetfunc,
    set: ffi::descrsetfunc,
}

impl RowShape {
    /// All columns as a row class, `dict`, `tuple`, or a pydantic model has them.
    pub fn new(class: &Bound<'_, PyType>, schema: &Schema) -> PyResult<RowShape> {
        let columns = (0..schema.columns().len() as u16).collect();
        RowShape::of(class, schema, columns, true)
    }

    fn of(
        class: &Bound<'_, PyType>,
        schema: &Schema,
        columns: Vec<u16>,
        whole: bool,
    ) -> PyResult<RowShape> {
        let py = class.py();
        let name = |column: &u16| &*schema.columns()[usize::from(*column)].name;
        let names: Vec<Py<PyString>> = columns
            .iter()
            .map(|column| PyString::intern(py, name(column)).unbind())
            .collect();
        let kind = if class.is(py.get_type::<PyDict>()) {
            Kind::Dict
        } else if class.is(py.get_type::<PyTuple>()) {
            Kind::Tuple
        } else if class.hasattr(intern!(py, "__pydantic_fields__"))? {
            Kind::Model
        } else {
            Kind::Slots(Slots::new(class, &names)?)
        };
        Ok(RowShape {
            class: class.clone().unbind(),
            columns,
            whole,
            names,
            kind,
        })
    }

    /// The shape of some columns: a part of the row class; for a model, a dict.
    pub fn part(&self, py: Python<'_>, schema: &Schema, columns: Vec<u16>) -> PyResult<RowShape> {
        let class = self.class.bind(py);
        let class = match self.kind {
            Kind::Dict | Kind::Tuple => class.clone(),
            Kind::Model => py.get_type::<PyDict>(),
            Kind::Slots(_) => {
                let names = columns
                    .iter()
                    .map(|column| &*schema.columns()[usize::from(*column)].name);
                let names = PyTuple::new(py, names.collect::<Vec<_>>())?;
                py.import("aurora_engine.rows")?
                    .getattr("part_class")?
                    .call1((class, names))?
                    .cast_into()?
            }
        };
        RowShape::of(&class, schema, columns, false)
    }

    /// The class of the rows.
    pub fn class<'py>(&self, py: Python<'py>) -> &Bound<'py, PyType> {
        self.class.bind(py)
    }

    /// The columns that the rows have, by their places in the schema.
    pub fn columns(&self) -> &[u16] {
        &self.columns
    }

    /// Whether the rows have all columns.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The name of a column.
    pub fn name<'py>(&self, py: Python<'py>, index: usize) -> &Bound<'py, PyString> {
        self.names[index].bind(py)
    }

    /// A row whose columns are still to be set. It must not be given away before each is.
    #[inline]
    pub fn start<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &self.kind {
            // SAFETY: the class is a heap type whose objects have no state but their slots, which allocation zeroes.
            Kind::Slots(_) => unsafe {
                Bound::from_owned_ptr_or_err(
                    py,
                    ffi::PyType_GenericAlloc(self.class.as_ptr().cast(), 0),
                )
            },
            // SAFETY: the interpreter is attached; the result is a new reference or null with an exception set.
            Kind::Tuple => unsafe {
                Bound::from_owned_ptr_or_err(
                    py,
                    ffi::PyTuple_New(self.columns.len() as ffi::Py_ssize_t),
                )
            },
            Kind::Dict | Kind::Model => Ok(PyDict::new(py).into_any()),
        }
    }

    /// Sets one column of a new row.
    #[inline]
    pub fn set(
        &self,
        row: &Bound<'_, PyAny>,
        index: usize,
        value: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        match &self.kind {
            Kind::Slots(slots) => slots.set(row, index, &value),
            Kind::Tuple => {
                let at = index as ffi::Py_ssize_t;
                // SAFETY: the tuple is new, nobody else has it, and it is this long; the reference goes over to it.
                match unsafe { ffi::PyTuple_SetItem(row.as_ptr(), at, value.into_ptr()) } {
                    0 => Ok(()),
                    _ => Err(PyErr::fetch(row.py())),
                }
            }
            Kind::Dict | Kind::Model => {
                // SAFETY: `start` has made it a dict.
                let row = unsafe { row.cast_unchecked::<PyDict>() };
                row.set_item(self.name(row.py(), index), value)
            }
        }
    }

    /// Keeps the place of a column that is set later.
    pub fn defer(&self, row: &Bound<'_, PyAny>, index: usize) -> PyResult<()> {
        match &self.kind {
            Kind::Slots(_) | Kind::Tuple => Ok(()),
            Kind::Dict | Kind::Model => self.set(row, index, row.py().None().into_bound(row.py())),
        }
    }

    /// The row, once all of its columns are set.
    #[inline]
    pub fn finish<'py>(&self, row: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match &self.kind {
            Kind::Slots(_) | Kind::Tuple | Kind::Dict => Ok(row),
            Kind::Model => {
                let py = row.py();
                let class = self.class.bind(py);
                let values = row.cast::<PyDict>()?;
                class.call_method(intern!(py, "model_construct"), (), Some(values))
            }
        }
    }

    /// Whether the rows are of a row class.
    pub fn is_typed(&self) -> bool {
        matches!(self.kind, Kind::Slots(_))
    }

    /// Whether the object is a row of the class.
    pub fn is_row(&self, row: &Bound<'_, PyAny>) -> PyResult<bool> {
        if !self.is_typed() {
            return Ok(false);
        }
        let class = self.class.bind(row.py());
        Ok(row.get_type().is(class) || row.is_instance(class)?)
    }

    /// The object in one column of a row of the class.
    pub fn read<'py>(&self, row: &Bound<'py, PyAny>, index: usize) -> PyResult<Bound<'py, PyAny>> {
        match &self.kind {
            Kind::Slots(slots) => slots.get(row, index),
            _ => row.getattr(self.name(row.py(), index)),
        }
    }

    /// What a column is where a dict does not say it: the default of the class, or null.
    #[cold]
    pub fn default<'py>(
        &self,
        py: Python<'py>,
        index: usize,
        column: &Column,
    ) -> PyResult<Bound<'py, PyAny>> {
        if matches!(self.kind, Kind::Slots(_)) {
            let defaults = self.class.bind(py).getattr(intern!(py, "__defaults__"))?;
            if let Some(default) = defaults.cast::<PyDict>()?.get_item(self.name(py, index))? {
                // What is made anew for each row.
                return if default.is_instance(types(py)?.default.bind(py))? {
                    default.call_method0(intern!(py, "make"))
                } else {
                    Ok(default)
                };
            }
        }
        if column.nullable {
            return Ok(py.None().into_bound(py));
        }
        let (expected, got) = (column.data_type.to_string(), "no value");
        let message = format!("column {:?}: expected {expected}, got {got}", column.name);
        Err(Raise::new(py, "NullViolation", message)
            .with("column", &column.name)
            .with("expected", expected)
            .with("got", got)
            .err())
    }
}

impl Slots {
    fn new(class: &Bound<'_, PyType>, names: &[Py<PyString>]) -> PyResult<Slots> {
        let py = class.py();
        let slots = names
            .iter()
            .map(|name| Ok(slot(class, name.bind(py).to_str()?)?.unbind()))
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
        Ok(Slots { slots, get, set })
    }

    #[inline]
    fn set(&self, row: &Bound<'_, PyAny>, index: usize, value: &Bound<'_, PyAny>) -> PyResult<()> {
        // SAFETY: `set` is the setter of this descriptor's type, the row is an object of the descriptor's class.
        if unsafe { (self.set)(self.slots[index].as_ptr(), row.as_ptr(), value.as_ptr()) } == 0 {
            Ok(())
        } else {
            Err(PyErr::fetch(row.py()))
        }
    }

    fn get<'py>(&self, row: &Bound<'py, PyAny>, index: usize) -> PyResult<Bound<'py, PyAny>> {
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
