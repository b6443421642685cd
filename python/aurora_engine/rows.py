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
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, Self, TypeVar, cast, dataclass_transform

from aurora_engine._engine import Schema
from aurora_engine.exceptions import SchemaError
from aurora_engine.types import annotation_of, stored_type


@dataclass(frozen=True, slots=True)
class Descending:
    """A key column whose largest value comes first."""

    column: str


def desc(column: str) -> Descending:
    """Orders a key column from its largest value down: ``key=("region", au.desc("at"))``."""
    return Descending(column)


KeyColumn = str | Descending
Key = KeyColumn | tuple[KeyColumn, ...]


def key_parts(key: Any, of: str) -> list[tuple[str, bool]]:
    """The key columns as the engine takes them: each one's name, and whether its largest value comes first."""
    parts = key if isinstance(key, (tuple, list)) else (key,)
    for part in parts:
        if not isinstance(part, KeyColumn):
            expected = "the name of a column, au.desc(name), or a tuple of them"
            got = f"{type(part).__name__} {part!r}"
            raise SchemaError(f"{of}: expected as key {expected}, got {got}", expected=expected, got=got)
    return [(part.column, True) if isinstance(part, Descending) else (part, False) for part in parts]


# Slots and methods that every row has; a column of such a name would replace it.
_RESERVED = frozenset({"__slots__", "__schema__", "__columns__", "__match_args__"})


def _own_columns(namespace: dict[str, Any]) -> list[str]:
    """The columns that a class body adds, in its order."""
    columns = [name for name, kind in _annotations(namespace).items() if not _is_class_variable(kind)]
    for name in columns:
        if name in _RESERVED or keyword.iskeyword(name) or not name.isidentifier() or name.startswith("__"):
            raise SchemaError(
                f'column "{name}": expected a Python identifier that is no keyword and does not begin with __',
                column=name, expected="an identifier", got=name,
            )  # fmt: skip
    return columns


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


def _schema_of(cls: RowType, key: Key) -> Schema:
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise SchemaError(f"row class {cls.__name__}: {error}; annotate columns with names of the module") from error
    columns = [(name, *stored_type(hints[name], name)) for name in cls.__columns__]
    return Schema(columns, key_parts(key, f"row class {cls.__name__}"))


def _make_init(cls: RowType, annotations: dict[str, Any]) -> Any:
    """``__init__`` with one parameter per column, as a dataclass would have it.

    The class refuses ``setattr``, so each column is set by its slot.
    """
    columns = cls.__columns__
    scope: dict[str, Any] = {"_refuse": _refuse_without_columns}
    parameters = ["self"]
    seen: str | None = None
    for index, name in enumerate(columns):
        scope[f"_set_{index}"] = _slot(cls, name).__set__
        if name in cls.__defaults__:
            seen = name
            scope[f"_default_{index}"] = cls.__defaults__[name]
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
    body = [f"    _set_{index}({this}, {name})" for index, name in enumerate(columns)] or [f"    _refuse({this})"]
    exec("\n".join([f"def __init__({', '.join(parameters)}):", *body]), scope)
    init = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__module__ = cls.__module__
    init.__annotations__ = {**annotations, "return": None}
    return init


def _refuse_without_columns(row: Any) -> NoReturn:
    name = type(row).__name__
    raise SchemaError(f"row class {name} has no columns")


def _slot(cls: type, name: str) -> Any:
    """The descriptor of a column's slot."""
    return next(base.__dict__[name] for base in cls.__mro__ if name in base.__dict__)


@dataclass_transform(eq_default=True, frozen_default=True, kw_only_default=False)
class RowType(type):
    """The metaclass of rows: turns annotations into columns, one slot each."""

    __schema__: Schema | None
    __columns__: tuple[str, ...]

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, key: Key | None = None, **extra: Any
    ) -> RowType:
        """Makes a row class. ``key`` names its key column or columns; without one it is a base for others."""
        if extra:
            raise SchemaError(f"row class {name}: expected the argument key, got {', '.join(sorted(extra))}")
        own = _own_columns(namespace)
        defaults = {column: namespace.pop(column) for column in own if column in namespace}
        namespace["__slots__"] = tuple(own)
        made = super().__new__(cls, name, bases, namespace)
        inherited = next((base for base in made.__mro__[1:] if isinstance(base, RowType)), None)
        columns = (*inherited.__columns__, *own) if inherited else tuple(own)
        made.__columns__ = columns
        type.__setattr__(made, "__match_args__", columns)
        made.__defaults__ = {**(inherited.__defaults__ if inherited else {}), **defaults}
        kinds = _annotations(namespace)
        made.__kinds__ = {**(inherited.__kinds__ if inherited else {}), **{column: kinds[column] for column in own}}
        made.__init__ = _make_init(made, made.__kinds__)  # type: ignore[misc]
        made.__schema__ = _schema_of(made, key) if key is not None else None
        if "__doc__" not in namespace:
            made.__doc__ = f"{name}{inspect.signature(made)}".removesuffix(" -> None")
        return made

    __defaults__: dict[str, Any]
    __kinds__: dict[str, Any]

    def __init__(cls, *args: Any, **_kwargs: Any) -> None:
        super().__init__(*args)


class Row(metaclass=RowType):
    """The base of typed rows: subclass it with annotated columns and ``key=``."""

    __schema__: ClassVar[Schema | None]
    __columns__: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, *, key: Key | None = None) -> None:
        """``key`` names the key column, or a tuple of them; :func:`desc` turns one around."""
        super().__init_subclass__()

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"rows are values: {type(self).__name__}.{name} cannot be set; change what is stored with tx.update(), "
            "or make another row with au.replace()"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"rows are values: {type(self).__name__}.{name} cannot be deleted")

    def __repr__(self) -> str:
        columns = ", ".join(f"{name}={getattr(self, name)!r}" for name in type(self).__columns__)
        return f"{type(self).__name__}({columns})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in type(self).__columns__)

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


R = TypeVar("R", bound=Row)


def astuple(row: Row) -> tuple[Any, ...]:
    """The row's values in the order of its columns."""
    return tuple([getattr(row, name) for name in type(row).__columns__])


def asdict(row: Row) -> dict[str, Any]:
    """The row's values by column name."""
    return {name: getattr(row, name) for name in type(row).__columns__}


def replace(row: R, **changes: Any) -> R:
    """A row like this one but for the named columns."""
    return type(row)(**{**asdict(row), **changes})


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
