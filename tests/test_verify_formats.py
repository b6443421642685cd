"""The independent reader reads the golden files of every format: the drawings, the writer and it say the same."""

from __future__ import annotations

import ast
import hashlib
import struct
from pathlib import Path
from typing import Any

import pytest

import aurora_engine.verifier
from aurora_engine.exceptions import Damaged, NewerFormat
from aurora_engine.verifier import extents, inner, keys, leaf, overflow, types
from aurora_engine.verifier.apply import apply
from aurora_engine.verifier.bloom import may_contain
from aurora_engine.verifier.content import Bytes
from aurora_engine.verifier.crc import crc32c
from aurora_engine.verifier.cursor import Cursor
from aurora_engine.verifier.damage import within
from aurora_engine.verifier.digest import Digest
from aurora_engine.verifier.extents import Geometry
from aurora_engine.verifier.history import History, Interval
from aurora_engine.verifier.hotlog import read_log
from aurora_engine.verifier.layer import Layer
from aurora_engine.verifier.manifest import Manifest
from aurora_engine.verifier.nodefiles import read_identity, read_state
from aurora_engine.verifier.page import Page, read_plain
from aurora_engine.verifier.records import Record, read_batch
from aurora_engine.verifier.sealed import read_sealed

RUST = Path(__file__).parent.parent / "rust"


def golden(crate: str, name: str) -> bytes:
    return (RUST / crate / "tests" / "golden" / f"{name}.bin").read_bytes()


def test_the_checksum() -> None:
    assert crc32c(b"123456789") == crc32c(b"56789", crc32c(b"1234")) == 0xE3069283


def test_pages_in_plain_form() -> None:
    page = read_plain(golden("page", "leaf-v1"), 42)
    assert (page.object, page.origin, page.lsn, page.prev_lsn) == (5, 0x0A0B, 1234, 1000)
    assert isinstance(page.body, leaf.Leaf)
    assert [types.signed(cell, 8) for cell in page.body.columns[0] if isinstance(cell, int)] == [10, 20, 40]
    assert keys.keys_of(page.body) == sorted(keys.keys_of(page.body))
    body = read_plain(golden("page", "inner-v1"), 7).body
    assert isinstance(body, inner.Inner)
    assert len(body.children) == len(body.keys) + 1
    assert body.keys == sorted(body.keys)
    assert isinstance(read_plain(golden("page", "overflow-v1"), 99).body, overflow.Piece)
    assert isinstance(read_plain(golden("page", "extent-map-v1"), 0).body, extents.ExtentMap)


def test_a_sealed_leaf_compressed_or_not() -> None:
    """It has a column of nulls only, packed as a dictionary without a value: its codes point nowhere, and go unread."""
    sealed, packed = (read_sealed(golden("page", f"sealed-leaf{form}-v1"), 77) for form in ("", "-lz4"))
    assert isinstance(sealed.body, leaf.Leaf)
    assert sealed == packed
    assert {column.type.name for column in sealed.body.layout.columns} >= {"bool", "int64", "decimal", "text", "uuid"}
    assert keys.keys_of(sealed.body) == sorted(keys.keys_of(sealed.body))
    assert any(set(column) == {None} for column in sealed.body.columns)


@pytest.mark.parametrize("form", ["leaf-v1", "inner-v1", "overflow-v1", "sealed-leaf-v1", "sealed-leaf-lz4-v1"])
def test_every_flipped_byte_of_a_page_is_noticed(form: str) -> None:
    whole = golden("page", form)
    read = read_sealed if form.startswith("sealed") else read_plain
    page_id = {"leaf-v1": 42, "inner-v1": 7, "overflow-v1": 99}.get(form, 77)
    for at in range(len(whole)):
        with pytest.raises(Damaged):
            read(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :], page_id)


def test_batch_and_history() -> None:
    batch = read_batch(golden("redo", "batch-v1"))
    lsns = [record.lsn for record in batch.records]
    assert lsns == sorted(lsns)
    assert all(record.prev_page < record.lsn for record in batch.records)
    history = History.decode(golden("redo", "history-v1"))
    assert history.contains(history.intervals[0].origin, history.intervals[0].first)
    assert not history.contains(history.intervals[0].origin + 1, history.intervals[0].first)


def test_a_history_by_example() -> None:
    """The rows of the table in docs/design/redo.md."""
    a, b = 10, 11
    history = History.of([Interval(a, 1, 104), Interval(a, 205, 600), Interval(a, 1001, (1 << 64) - 1)])
    assert str(history) == "a[1..104] a[205..600] a[1001..)"
    assert [history.contains(a, lsn) for lsn in (104, 105, 205, 700, 1001)] == [True, False, True, False, True]
    assert not history.contains(b, 205)
    assert (history.floor(150), history.floor(700), history.next_after(104), history.next_after(600)) == (
        104,
        600,
        205,
        1001,
    )
    assert str(history.clip(300)) == "a[1..104] a[205..300]"
    assert history.includes(history.clip(300))
    assert not history.clip(300).includes(history)


def test_layers_identity_and_state() -> None:
    delta = Layer("delta", Bytes(golden("store", "delta-v1")))
    delta.check()
    records = [record for block in delta.meta.blocks for record in delta.records(block)]
    assert len(records) == delta.footer.entries
    commits = [commit for block in delta.meta.commits for commit in delta.commits(block)]
    timed = {(record.lsn, record.origin, record.time_us) for record in records if record.time_us is not None}
    assert timed <= {tuple(commit) for commit in commits}
    # The images of this one are no pages.
    images = Layer("image", Bytes(golden("store", "image-v1")))
    assert [image.page for block in images.meta.blocks for image in images.images(block)]
    with pytest.raises(Damaged, match=r"image, byte 512: expected .* sealed page"):
        images.check()
    assert read_identity(golden("store", "identity-v1")).node < 64
    assert read_state(golden("store", "state-v1")).floor >= 0


def test_every_flipped_byte_of_a_layer_is_noticed() -> None:
    whole = golden("store", "delta-v1")
    for at in range(len(whole)):
        with pytest.raises(Damaged) as raised:
            Layer("delta", Bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])).check()
        assert raised.value.object == "delta"


def test_what_is_cut_short_is_noticed() -> None:
    for name, read in {
        "delta-v1": lambda data: Layer("l", Bytes(data)).check(),
        "identity-v1": read_identity,
        "state-v1": read_state,
    }.items():
        whole = golden("store", name)
        for length in range(len(whole)):
            with pytest.raises(Damaged):
                read(whole[:length])


def test_the_hot_log(tmp_path: Path) -> None:
    (tmp_path / "log-00000000").write_bytes(golden("store", "log-v1"))
    log = read_log(tmp_path, [0, 1], 42, tmp_path)
    assert [len(log.batches_of(node)) for node in (0, 1)] == [2, 2]
    assert log.problems == []
    with pytest.raises(Damaged, match="files of the hot log"):
        read_log(tmp_path / "elsewhere", [0, 1], 42, tmp_path)
    assert read_log(tmp_path, [0, 1], 43, tmp_path).entries == [], "blocks of another log do not pass"


def test_the_manifest() -> None:
    whole = golden("proto", "manifest-1")
    manifest = Manifest.decode(whole)
    assert manifest.groups >= 1
    assert manifest.nodes
    for at in range(len(whole)):
        with pytest.raises((Damaged, NewerFormat)):
            Manifest.decode(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


# ------------------------------------------------------------------------------------------------------- small things


def test_numbers_of_varying_length_have_one_form() -> None:
    for value in (0, 1, 127, 128, 16383, 16384, (1 << 64) - 1):
        out, rest = b"", value
        while rest >= 0x80:
            out, rest = out + bytes([rest & 0x7F | 0x80]), rest >> 7
        assert Cursor(out + bytes([rest]), "numbers").varint() == value
    for wrong in (b"", b"\x80", b"\x80\x00", b"\xff" * 12, b"\xff" * 9 + b"\x02"):
        with pytest.raises(Damaged):
            Cursor(wrong, "numbers").varint()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (types.DataType(2), [-128, -1, 0, 127]),
        (types.DataType(5), [-(1 << 63), -5, 0, (1 << 63) - 1]),
        (types.DataType(8, 38), [-(10**37), -1, 0, 10**37]),
        (types.DataType(7), [float("-inf"), -1.5, 0.0, 2.0, float("inf"), float("nan")]),
    ],
)
def test_keys_keep_the_order_of_values(kind: types.DataType, values: list[Any]) -> None:
    def cell(value: Any) -> int:
        if isinstance(value, float):
            return int.from_bytes(struct.pack("<d", value), "little")
        return types.unsigned(value, kind.width or 0)

    encode = keys.encoder(kind, nullable=True, descending=False)
    encoded = [encode(None), *(encode(cell(value)) for value in values)]
    assert encoded == sorted(encoded)
    assert len(set(encoded)) == len(encoded)
    down = keys.encoder(kind, nullable=True, descending=True)
    assert [down(None), *(down(cell(value)) for value in values)] == [bytes(255 - b for b in part) for part in encoded]


def test_the_example_of_a_key() -> None:
    """(int16, text descending) with the values (-1, "a"), from docs/design/types.md."""
    number = keys.encoder(types.DataType(3), nullable=False, descending=False)(types.unsigned(-1, 2))
    text = keys.encoder(types.DataType(12), nullable=False, descending=True)(b"a")
    assert number + text == bytes.fromhex("7fff 9effff")


def test_the_geometry_of_ten_gib_segments() -> None:
    geometry = Geometry(32 * 1024, 327_680)
    assert (geometry.extent_pages, geometry.map_pages, geometry.extents) == (64, 4, (327_680 - 4) // 64)
    for extent in (0, 1, geometry.extents - 1, geometry.extents):
        first = geometry.first_page(extent)
        assert geometry.extent_of(first) == geometry.extent_of(first + 63) == extent
    assert geometry.extent_of(0) is None
    assert geometry.map_place(geometry.extents) == (327_680, 0)


def test_a_record_that_does_not_follow_is_refused() -> None:
    def nothing(*_: int) -> Page:
        raise AssertionError

    formatted = Record(
        5, 1, 9, 0, 0, None, bytes([2, 16, 1, 3])
    )  # an inner page of object 16, level 1, leftmost child 3
    page = apply(Page(9, 1024), formatted, nothing)
    assert (page.lsn, page.object, page.kind) == (5, 16, "inner")
    insert = Record(7, 1, 9, 5, 5, None, bytes([32, 0, 4]) + b"key")
    with pytest.raises(Damaged, match="expected LSN 6 before LSN 7, got LSN 5"):
        apply(page, insert._replace(prev_page=6), nothing)
    with pytest.raises(Damaged, match="expected a record of page 9"):
        apply(page, insert._replace(page=8), nothing)
    page = apply(page, insert, nothing)
    assert page.body == inner.Inner(1, [3, 4], [b"key"])
    with pytest.raises(Damaged, match="expected a page of kind leaf, got inner"), within("page 9"):
        apply(page, Record(8, 1, 9, 7, 7, None, bytes([18, 0])), nothing)


def test_an_empty_filter_may_have_every_page() -> None:
    assert may_contain(b"", 7)
    assert not may_contain(bytes(8), 7)


def test_the_digest_is_the_drawn_one() -> None:
    """A row of every form, written by hand; the order of rows does not matter, nor how JSON is spelled."""
    kinds = [types.DataType(code, 2 + 256 if code == 8 else 0) for code in (1, 3, 7, 8, 9, 12, 14, 15)]
    rows: list[list[types.Cell]] = [
        [
            1,
            types.unsigned(-2, 2),
            0x3FF0 << 48,
            types.unsigned(-150, 16),
            3,
            b"ab",
            5,
            b'{"b": 1, "a": [2, "\xc3\xa4"]}',
        ],
        [None] * 8,
    ]
    token, doc = (5).to_bytes(16, "little"), rb'{"a":[2,"\u00e4"],"b":1}'
    written = (
        b"\1\1" + b"\1" + struct.pack("<q", -2) + b"\1" + struct.pack("<d", 1.0)
        + b"\1" + (-150).to_bytes(16, "little", signed=True) + b"\1" + struct.pack("<i", 3) + b"\1\2\0\0\0ab"
        + b"\1" + token + b"\1" + struct.pack("<I", len(doc)) + doc
    )  # fmt: skip
    sums = sum(int.from_bytes(hashlib.sha256(row).digest()[:16], "little") for row in (written, bytes(8)))
    for order in (rows, rows[::-1]):
        digest = Digest(kinds)
        digest.add([list(column) for column in zip(*order, strict=True)])
        assert (digest.rows, digest.hex) == (2, f"{sums % 2**128:032x}")


def test_it_shares_no_code_with_the_writer() -> None:
    """Of aurora_engine it imports itself and the names of errors, and nothing compiled."""
    package = Path(aurora_engine.verifier.__file__).parent
    for path in package.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.startswith("aurora_engine"):
                    assert name == "aurora_engine.exceptions" or name.startswith("aurora_engine.verifier"), (path, name)
