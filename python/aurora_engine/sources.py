"""What ``load`` takes, and how it is read: Arrow streams, data frames, rows, files of Parquet and CSV.

Files are read by pyarrow, or by polars where only that is installed; neither is needed for anything else.
"""

from __future__ import annotations

import glob
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_engine.exceptions import AuroraError, InvalidOption, MissingExtra, StreamFailed

if TYPE_CHECKING:
    from aurora_engine._engine import Schema

StrPath = str | os.PathLike[str]
"""A path, or a pattern with ``*``, ``?`` or ``[...]``."""

_PARQUET = (".parquet", ".pq")
_CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_LIBRARIES = ("pyarrow", "polars")
_EXTRA = 'pip install "aurora-engine[files]"'


@dataclass
class Source:
    """Rows to load, part by part, and how many there will be, as far as that is known."""

    parts: Iterable[Any]
    """Each is an Arrow stream, or an iterable of rows."""
    rows: int | None = None
    bytes: int | None = None
    """Bytes of the files, where rows are not counted before they are read."""
    position: Callable[[], int] | None = None
    """Bytes of the files that are read."""


def source_of(data: Any, schema: Schema) -> Source:
    """How to read what was given to ``load``, into a table of this schema."""
    if isinstance(data, (str, os.PathLike)):
        return _files([data], schema)
    if hasattr(data, "__arrow_c_stream__"):
        return Source([data], rows=row_count(data))
    if isinstance(data, (list, tuple)) and data and all(isinstance(item, (str, os.PathLike)) for item in data):
        return _files(data, schema)
    return Source([_as_stream(data)], rows=row_count(data))


def row_count(data: Any) -> int | None:
    """How many rows an object holds, if it says so."""
    for name in ("num_rows", "height"):
        count = getattr(data, name, None)
        if isinstance(count, int):
            return count
    if isinstance(data, (list, tuple)):
        return len(data)
    return None


def _as_stream(data: Any) -> Any:
    """A lazy frame, a dataset, an older data frame of pandas: each by its own way to Arrow. Others as they are."""
    module = type(data).__module__.partition(".")[0]
    if module == "polars" and hasattr(data, "collect"):
        return data.collect()
    if module == "pyarrow" and hasattr(data, "scanner"):
        return data.scanner().to_reader()
    if module == "pyarrow" and hasattr(data, "to_reader"):
        return data.to_reader()
    if module == "pandas" and hasattr(data, "columns"):
        return _library("pyarrow").Table.from_pandas(data, preserve_index=False)
    return data


def _files(given: Sequence[StrPath], schema: Schema) -> Source:
    paths = [path for one in given for path in _matching(Path(one))]
    reader = _reader()
    kinds = {_kind(path) for path in paths}
    size = sum(path.stat().st_size for path in paths)
    read = _Read()
    rows = None
    if kinds == {"parquet"}:
        rows = 0
        for path in paths:
            with _reading(path):
                rows += reader.parquet_rows(path)
    return Source(
        _parts(paths, reader, schema, read),
        rows=rows,
        bytes=None if rows is not None else size,
        position=read.position,
    )


class _Read:
    """How many bytes of the files are read: those before the present one, and those of it."""

    def __init__(self) -> None:
        self.before = 0
        self.file: Any = None

    def position(self) -> int:
        """Bytes read so far."""
        try:
            return self.before + (0 if self.file is None else int(self.file.tell()))
        except (OSError, ValueError):  # a file that cannot tell, or is closed
            return self.before


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Each library has errors of its own: a file that cannot be read is one of ours."""
    try:
        yield
    except AuroraError:
        raise
    except Exception as error:
        raise StreamFailed(f"{path} could not be read: {error}; nothing was loaded") from error


def _parts(paths: list[Path], reader: Any, schema: Schema, read: _Read) -> Iterator[Any]:
    for path in paths:
        with _reading(path):
            if _kind(path) == "parquet":
                yield reader.parquet(path)
            else:
                yield from reader.csv(path, schema, "\t" if ".tsv" in path.suffixes else ",", read)
        read.before += path.stat().st_size
        read.file = None


def _matching(path: Path) -> list[Path]:
    """The files that a path, a pattern or a folder stands for, in the order of their names."""
    if path.is_dir():
        found = [file for file in sorted(path.iterdir()) if file.name.lower().endswith((*_PARQUET, *_CSV))]
    elif path.exists():
        found = [path]
    else:
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - absolute patterns
    if found:
        return found
    expected = "a file, a folder of files, or a pattern that matches some"
    raise InvalidOption(f"load: expected {expected}, got {path}", option="source", expected=expected, got=str(path))


def _kind(path: Path) -> str:
    name = path.name.lower()
    if name.endswith(_PARQUET):
        return "parquet"
    if name.endswith(_CSV):
        return "csv"
    expected = f"a name that ends in {', '.join((*_PARQUET, *_CSV))}"
    raise InvalidOption(f"load: expected {expected}, got {path}", option="source", expected=expected, got=str(path))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        expected = f"{name} to be installed: {_EXTRA}"
        raise MissingExtra(f"load: expected {expected}", expected=expected) from error


def _reader() -> Any:
    for name, reader in zip(_LIBRARIES, (_Pyarrow, _Polars), strict=True):
        if importlib.util.find_spec(name) is not None:
            return reader
    expected = f"pyarrow or polars to read files with: {_EXTRA}"
    raise MissingExtra(f"load: expected {expected}, got neither", expected=expected)


class _Pyarrow:
    """Files through pyarrow, a batch at a time."""

    @staticmethod
    def parquet_rows(path: Path) -> int:
        """Rows of a file, from its footer."""
        return int(_library("pyarrow.parquet").read_metadata(path).num_rows)

    @staticmethod
    def parquet(path: Path) -> Any:
        """The rows of a file."""
        arrow, parquet = _library("pyarrow"), _library("pyarrow.parquet")
        file = parquet.ParquetFile(path)
        return arrow.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches())

    @staticmethod
    def csv(path: Path, schema: Schema, delimiter: str, read: _Read) -> Iterator[Any]:
        """The rows of a file, read as the table's columns have them."""
        arrow, csv = _library("pyarrow"), _library("pyarrow.csv")
        types = {field.name: _plain(arrow, field.type) for field in arrow.schema(schema)}
        texts = [name for name, kind, nullable in schema.columns if kind in ("text", "json") and not nullable]
        convert = csv.ConvertOptions(
            column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""]
        )
        read.file = arrow.OSFile(str(path))
        source: Any = read.file
        if path.suffix.lower() == ".gz":
            source = arrow.CompressedInputStream(read.file, "gzip")
        with csv.open_csv(
            source,
            read_options=csv.ReadOptions(use_threads=False),
            convert_options=convert,
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        ) as batches:
            for batch in batches:
                yield arrow.Table.from_batches([_without_nulls(batch, texts)])


def _plain(arrow: Any, kind: Any) -> Any:
    """The type to read from text: extension types are read as what text says of them."""
    kind = getattr(kind, "storage_type", kind)
    return arrow.string() if kind == arrow.binary(16) else kind


def _without_nulls(batch: Any, texts: list[str]) -> Any:
    """An empty field is an empty text where the column takes no null."""
    for name in texts:
        place = batch.schema.get_field_index(name)
        if place >= 0 and batch.column(place).null_count:
            batch = batch.set_column(place, name, batch.column(place).fill_null(""))
    return batch


class _Polars:
    """Files through polars, one at a time."""

    @staticmethod
    def parquet_rows(path: Path) -> int:
        """Rows of a file, from its footer."""
        polars = _library("polars")
        return int(polars.scan_parquet(path).select(polars.len()).collect().item())

    @staticmethod
    def parquet(path: Path) -> Any:
        """The rows of a file."""
        return _library("polars").read_parquet(path)

    @staticmethod
    def csv(path: Path, schema: Schema, delimiter: str, _read: _Read) -> Iterator[Any]:
        """The rows of a file, read as the table's columns have them."""
        polars = _library("polars")
        frame = polars.read_csv(path, separator=delimiter, infer_schema=False)
        kinds = {name: (kind, nullable) for name, kind, nullable in schema.columns}
        columns = [
            _of_text(polars, polars.col(name), *kinds[name]).alias(name) if name in kinds else polars.col(name)
            for name in frame.columns
        ]
        yield frame.select(columns)


def _of_text(polars: Any, column: Any, kind: str, nullable: bool) -> Any:
    """A column of texts as one of a stored type."""
    if kind.startswith("decimal"):
        digits, scale = kind.removeprefix("decimal(").removesuffix(")").split(", ")
        return column.cast(polars.Decimal(int(digits), int(scale)))
    read: dict[str, Callable[[], Any]] = {
        "text": lambda: column if nullable else column.fill_null(""),
        "json": lambda: column if nullable else column.fill_null(""),
        "uuid": lambda: column,
        "bytes": lambda: column.cast(polars.Binary),
        "bool": lambda: column.str.to_lowercase().replace_strict(
            {"true": True, "false": False}, return_dtype=polars.Boolean
        ),
        "date": column.str.to_date,
        "time": column.str.to_time,
        "timestamp": lambda: column.str.to_datetime(time_unit="us"),
        "timestamp with zone": lambda: column.str.to_datetime(time_unit="us", time_zone="UTC"),
    }
    return read[kind]() if kind in read else column.cast(getattr(polars, kind.capitalize()))
