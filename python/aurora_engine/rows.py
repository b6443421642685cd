"""Typed rows: a class describes a table, its instances are the table's rows.

.. code-block:: python

    class Account(au.Row, key="id"):
        id: int
        owner: str
        balance: Annotated[Decimal, au.precision(18, 2)] = Decimal(0)

Rows are values: they compare and hash by their columns and cannot be changed. To change what is stored, update it
in a transaction. A row has no public names but its columns, so that any column name is free; :func:`asdict`,
:func:`astuple` and :func:`replace` are functions.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import keyword
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, Protocol, Self, TypeAlias, TypeVar, cast, dataclass_transform

from aurora_engine._engine import Expr, Schema
from aurora_engine.exceptions import SchemaError
from aurora_engine.rules import Constraint, Default, IndexOn
from aurora_engine.types import annotation_of, stored_type


@dataclass(frozen=True, slots=True)
class Descending:
    """A column of a key or an index, or an expression of an index, whose largest value comes first."""

    column: str | Expr


def desc(column: str | Expr) -> Descending:
    """Orders a column, or an index's expression, from its largest value down: ``key=("region", au.desc("at"))``."""
    return Descending(column)


KeyColumn = str | Descending
IndexColumn: TypeAlias = str | Descending | Expr
"""A column of an index: a column of the table by name, or an expression over its columns."""
Key = KeyColumn | tuple[KeyColumn, ...]


def key_parts(key: Any, of: str) -> list[tuple[str, bool]]:
    """The key columns as the engine takes them: each one's name, and whether its largest value comes first."""
    columns: list[tuple[str, bool]] = []
    for part in key if isinstance(key, (tuple, list)) else (key,):
        name = part.column if isinstance(part, Descending) else part
        if not isinstance(name, str):
            expected = "the name of a column, au.desc(name), or a tuple of them"
            got = f"{type(part).__name__} {part!r}"
            raise SchemaError(f"{of}: expected as key {expected}, got {got}", expected=expected, got=got)
        columns.append((name, isinstance(part, Descending)))
    return columns


def index_parts(columns: Iterable[Any], of: str) -> list[tuple[str | Expr, bool]]:
    """The columns of an index as the engine takes them: names and expressions, and whether the largest comes first."""
    parts = [(part.column, True) if isinstance(part, Descending) else (part, False) for part in columns]
    for part, _ in parts:
        if not isinstance(part, str | Expr):
            expected = "the name of a column, an expression, or au.desc() of one"
            got = f"{type(part).__name__} {part!r}"
            raise SchemaError(f"{of}: expected as column {expected}, got {got}", expected=expected, got=got)
    return parts


def _own_columns(namespace: dict[str, Any]) -> list[str]:
    """The columns that a class body adds, in its order."""
    columns = [name for name, kind in _annotations(namespace).items() if not _is_class_variable(kind)]
    for name in columns:
        # What a class body calls so is Python's, or gets another name from it.
        if name.startswith("__") and name.isidentifier() and not namespace.get("__generated__"):
            raise SchemaError(
                f'column "{name}": expected a name that does not begin with __, which Python changes in a class',
                column=name, expected="a name that does not begin with __", got=name,
            )  # fmt: skip
    return columns


def _is_attribute(name: str) -> bool:
    """Whether a program can write ``row.name`` for a column of the name; others are read as ``row["name"]``."""
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("__")


def _slot_names(columns: list[str]) -> dict[str, str]:
    """The name of each column's slot: its own, where Python takes it for one."""
    taken = {name for name in columns if _is_attribute(name)}
    slots: dict[str, str] = {}
    for index, name in enumerate(columns):
        slot = name if _is_attribute(name) else f"column_{index}"
        while slot != name and slot in taken:
            slot = f"{slot}_"
        taken.add(slot)
        slots[name] = slot
    return slots


def _annotations(namespace: dict[str, Any]) -> dict[str, Any]:
    if "__annotations__" in namespace or "__annotate_func__" not in namespace:
        return dict(namespace.get("__annotations__", {}))
    # Python 3.14 and later keep annotations unevaluated.
    annotationlib = importlib.import_module("annotationlib")
    annotate = annotationlib.get_annotate_from_class_namespace(namespace)
    if annotate is None:
        return {}
    return dict(annotationlib.call_annotate_function(annotate, annotationlib.Format.FORWARDREF))


def _is_class_variable(kind: Any) -> bool:
    if isinstance(kind, str):
        return kind.removeprefix("typing.").startswith("ClassVar")
    return kind is ClassVar or typing.get_origin(kind) is ClassVar


def _schema_of(cls: type, names: Iterable[str], key: Key) -> Schema:
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise SchemaError(f"row class {cls.__name__}: {error}; annotate columns with names of the module") from error
    columns = [(name, *stored_type(hints[name], name)) for name in names]
    return Schema(columns, key_parts(key, f"row class {cls.__name__}"))


class Model(Protocol):
    """A model of pydantic 2.10 or newer: its class can describe a table, its objects can be rows."""

    __pydantic_fields__: ClassVar[dict[str, Any]]


class ArrowRows(Protocol):
    """Anything that gives Arrow record batches: a table, a data frame, a reader, a query's result."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The record batches as an Arrow PyCapsule."""


RowInput = Mapping[str, Any] | tuple[Any, ...] | list[Any] | Model
"""What is taken for a row beside the row class itself: by column name, or in the order of the columns."""


def is_model(cls: Any) -> bool:
    """Whether a class is a pydantic model."""
    return isinstance(cls, type) and hasattr(cls, "__pydantic_fields__")


def model_schema(cls: type[Model], key: Key) -> Schema:
    """The schema of a table whose rows a pydantic model describes."""
    return _schema_of(cls, cls.__pydantic_fields__, key)


def _make_init(cls: RowType, annotations: dict[str, Any]) -> Any:
    """``__init__`` with one parameter per column, as a dataclass would have it.

    The class refuses ``setattr``, so each column is set by its slot.
    """
    columns = cls.__columns__
    if not all(map(_is_attribute, columns)):
        return _make_init_by_name(cls)
    scope: dict[str, Any] = {"_refuse": _refuse_without_columns}
    parameters = ["self"]
    made: dict[str, str] = {}
    seen: str | None = None
    for index, name in enumerate(columns):
        scope[f"_set_{index}"] = _slot(cls, name).__set__
        if name in cls.__defaults__:
            seen = name
            default = cls.__defaults__[name]
            scope[f"_default_{index}"] = default
            if isinstance(default, Default):
                scope[f"_make_{index}"] = default.make
                made[name] = f"_make_{index}() if {name} is _default_{index} else {name}"
            parameters.append(f"{name}=_default_{index}")
        elif seen is not None:
            raise SchemaError(
                f'column "{name}" has no default but follows "{seen}", which has one',
                column=name, expected="a default, or a place before the columns that have one", got="no default",
            )  # fmt: skip
        else:
            parameters.append(name)
    this = "_self" if "self" in columns else "self"
    parameters[0] = this
    values = [made.get(name, name) for name in columns]
    body = [f"    _set_{index}({this}, {value})" for index, value in enumerate(values)] or [f"    _refuse({this})"]
    exec("\n".join([f"def __init__({', '.join(parameters)}):", *body]), scope)
    init = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__module__ = cls.__module__
    init.__annotations__ = {**annotations, "return": None}
    return init


def _make_init_by_name(cls: RowType) -> Any:
    """``__init__`` for names that no parameter can have: values in order, or by name as ``**{"my column": 1}``."""
    columns, defaults, name = cls.__columns__, cls.__defaults__, cls.__name__
    setters = {column: _slot(cls, column).__set__ for column in columns}

    def __init__(self: Any, /, *values: Any, **named: Any) -> None:  # noqa: N807 - it becomes the class's
        if len(values) > len(columns):
            raise TypeError(f"{name}() takes {len(columns)} columns, got {len(values)}")
        given = dict(zip(columns, values, strict=False))
        for column, value in named.items():
            if column not in setters or column in given:
                raise TypeError(f"{name}() got {'two values' if column in given else 'a value'} for {column!r}")
            given[column] = value
        for column, put in setters.items():
            if column not in given and column not in defaults:
                raise TypeError(f"{name}() is missing the column {column!r}")
            value = given[column] if column in given else defaults[column]
            put(self, value.make() if isinstance(value, Default) else value)

    return __init__


def _auto_column(cls: RowType) -> str | None:
    """The column that is numbered."""
    autos = [name for name, of in cls.__defaults__.items() if isinstance(of, Default) and of.is_auto]
    if len(autos) > 1:
        got = ", ".join(autos)
        raise SchemaError(
            f"row class {cls.__name__}: expected at most one column with au.auto(), got {got}",
            column=autos[1], expected="one", got=got,
        )  # fmt: skip
    return autos[0] if autos else None


def _refuse_without_columns(row: Any) -> NoReturn:
    name = type(row).__name__
    raise SchemaError(f"row class {name} has no columns")


def _slot(cls: type, name: str) -> Any:
    """The descriptor of a column's slot."""
    name = getattr(cls, "__slot_names__", {}).get(name, name)
    return next(base.__dict__[name] for base in cls.__mro__ if isinstance(base, RowType) and name in base.__dict__)


@dataclass_transform(eq_default=True, frozen_default=True, kw_only_default=False)
class RowType(type):
    """The metaclass of rows: turns annotations into columns, one slot each."""

    __schema__: Schema | None
    __columns__: tuple[str, ...]

    def __new__(
        cls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        key: Key | None = None,
        indexes: Sequence[IndexOn] = (),
        constraints: Sequence[Constraint] = (),
        **extra: Any,
    ) -> RowType:
        """Makes a row class. ``key`` names its key column or columns; without one it is a base for others."""
        if extra:
            expected = "the arguments key, indexes and constraints"
            raise SchemaError(f"row class {name}: expected {expected}, got {', '.join(sorted(extra))}")
        own = _own_columns(namespace)
        defaults = {column: namespace.pop(column) for column in own if column in namespace}
        slots = _slot_names(own)
        namespace["__slots__"] = tuple(slots.values())
        made = super().__new__(cls, name, bases, namespace)
        inherited = next((base for base in made.__mro__[1:] if isinstance(base, RowType)), None)
        columns = (*inherited.__columns__, *own) if inherited else tuple(own)
        hidden = {column: slot for column, slot in slots.items() if slot != column}
        made.__slot_names__ = {**(inherited.__slot_names__ if inherited else {}), **hidden}
        made.__columns__ = columns
        type.__setattr__(made, "__match_args__", columns)
        made.__defaults__ = {**(inherited.__defaults__ if inherited else {}), **defaults}
        made.__indexes__ = (*(inherited.__indexes__ if inherited else ()), *indexes)
        made.__constraints__ = (*(inherited.__constraints__ if inherited else ()), *constraints)
        made.__auto__ = _auto_column(made)
        kinds = _annotations(namespace)
        made.__kinds__ = {**(inherited.__kinds__ if inherited else {}), **{column: kinds[column] for column in own}}
        made.__init__ = _make_init(made, made.__kinds__)  # type: ignore[misc]
        made.__schema__ = _schema_of(made, columns, key) if key is not None else None
        if "__doc__" not in namespace:
            made.__doc__ = f"{name}{inspect.signature(made)}".removesuffix(" -> None")
        return made

    __defaults__: dict[str, Any]
    __kinds__: dict[str, Any]
    __slot_names__: dict[str, str]
    """The slots of columns whose names are no attributes."""
    __indexes__: tuple[IndexOn, ...]
    __constraints__: tuple[Constraint, ...]
    __auto__: str | None

    def __init__(cls, *args: Any, **_kwargs: Any) -> None:
        super().__init__(*args)


class Row(metaclass=RowType):
    """The base of typed rows: subclass it with annotated columns and ``key=``."""

    __schema__: ClassVar[Schema | None]
    __columns__: ClassVar[tuple[str, ...]]

    def __init_subclass__(
        cls, *, key: Key | None = None, indexes: Sequence[IndexOn] = (), constraints: Sequence[Constraint] = ()
    ) -> None:
        """``key`` names the key column, or a tuple of them; :func:`desc` turns one around.

        ``indexes`` are made by ``au.index``, ``constraints`` by ``au.check`` and ``au.foreign_key``.
        """
        super().__init_subclass__()

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"rows are values: {type(self).__name__}.{name} cannot be set; change what is stored with tx.update(), "
            "or make another row with au.replace()"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"rows are values: {type(self).__name__}.{name} cannot be deleted")

    def __repr__(self) -> str:
        columns = ", ".join(f"{name}={value!r}" for name, value in asdict(self).items())
        return f"{type(self).__name__}({columns})"

    def __getitem__(self, column: str) -> Any:
        """The value of a column by its name: for names that are no Python identifiers."""
        if column not in type(self).__columns__:
            raise KeyError(column)
        return _value(self, column)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(mine == theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True))

    def __hash__(self) -> int:
        return hash((type(self), *astuple(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), astuple(self)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: Any) -> Self:
        return self

    def __replace__(self, **changes: Any) -> Self:
        """The same row with some columns changed; ``copy.replace`` of Python 3.13 calls it."""
        return replace(self, **changes)


AnyRow = Row | dict[str, Any] | tuple[Any, ...] | Model
"""What reading gives, as the table was opened: typed rows, dicts, tuples or pydantic models."""

R = TypeVar("R", bound=Row)


def _value(row: Row, column: str) -> Any:
    return getattr(row, type(row).__slot_names__.get(column, column))


def astuple(row: Row) -> tuple[Any, ...]:
    """The row's values in the order of its columns."""
    if type(row).__slot_names__:
        return tuple([_value(row, name) for name in type(row).__columns__])
    return tuple([getattr(row, name) for name in type(row).__columns__])


def asdict(row: Row) -> dict[str, Any]:
    """The row's values by column name."""
    return {name: _value(row, name) for name in type(row).__columns__}


def replace(row: R, **changes: Any) -> R:
    """A row like this one but for the named columns."""
    return type(row)(**{**asdict(row), **changes})


@functools.lru_cache(maxsize=1024)
def part_class(cls: RowType, columns: tuple[str, ...]) -> type[Row]:
    """The class of rows that have some columns of another class: what a read with ``columns=`` gives."""
    namespace = {
        "__annotations__": {column: cls.__kinds__[column] for column in columns},
        "__module__": cls.__module__,
        "__doc__": f"Some columns of {cls.__name__}: {', '.join(columns)}.",
    }
    return cast("type[Row]", RowType(cls.__name__, (Row,), namespace))


@functools.lru_cache(maxsize=1024)
def row_class(name: str, schema: Schema) -> type[Row]:
    """The row class of a table that was made from an Arrow schema, or is opened without its class."""
    title = "".join(part.capitalize() for part in name.split("_")) or "Record"
    annotations = {column: annotation_of(kind, nullable=nullable) for column, kind, nullable in schema.columns}
    key = tuple(desc(column) if descending else column for column, descending in schema.key)
    namespace = {
        "__annotations__": annotations, "__module__": __name__, "__doc__": f"A row of table {name!r}.",
        # A table's handle may replace this class when the table's columns change.
        "__generated__": True,
    }  # fmt: skip
    if not title.isidentifier():
        title = "Record"
    return cast("type[Row]", RowType(title, (Row,), namespace, key=key))
