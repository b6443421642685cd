"""A volume at a moment: any page, from layers, blobs and records, as far as these count.

A page as of LSN ``at`` in a History is what the records make of it:

1. the newest image of it with an LSN at or below ``at`` that counts;
2. the records of it above that and up to ``at`` that count, each once, from wherever they lie;
3. of these, what comes before the start of the page's newest life does not matter, and then neither does the image.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from aurora_engine.verifier.apply import apply
from aurora_engine.verifier.blob import Blob
from aurora_engine.verifier.damage import check, within
from aurora_engine.verifier.extents import Geometry
from aurora_engine.verifier.history import History
from aurora_engine.verifier.layer import DELTA, Block, Image, Layer
from aurora_engine.verifier.page import Page
from aurora_engine.verifier.records import Record

_BLOCKS_KEPT: Final = 4096
_I = TypeVar("_I", Record, Image)


class Volume:
    """Pages as of the end of a History.

    Args:
        geometry: Sizes of pages and segments.
        history: What counts, clipped at the moment that is read.
        layers: Layers whose union has everything.
        blobs: Blobs that records refer to, by id.
        recent: Records that are in no layer yet.
    """

    def __init__(
        self,
        geometry: Geometry,
        history: History,
        layers: Iterable[Layer],
        blobs: Mapping[int, Blob],
        recent: Iterable[Record] = (),
    ) -> None:
        self.geometry, self.history, self.at = geometry, history, history.end
        layers = list(layers)
        self._deltas = [layer for layer in layers if layer.footer.kind == DELTA]
        self._images = [layer for layer in layers if layer.footer.kind != DELTA]
        self._blobs = blobs
        self._recent: dict[int, list[Record]] = {}
        for record in recent:
            self._recent.setdefault(record.page, []).append(record)
        self._decoded: OrderedDict[tuple[str, int], dict[int, list[Record]]] = OrderedDict()
        self._listed: OrderedDict[tuple[str, int], dict[int, list[Image]]] = OrderedDict()

    def page(self, page_id: int) -> Page:
        """A page; one that was never written is free."""
        image, layer = self._newest_image(page_id)
        records = self._records(page_id, image.lsn if image else 0)
        start = max((at for at, record in enumerate(records) if record.starts_life), default=None)
        if start is not None:
            records, image = records[start:], None
        with within(f"page {page_id}"):
            page = layer.page(image) if image and layer else Page(page_id, self.geometry.page_bytes)
            check(page.page_bytes == self.geometry.page_bytes, f"{self.geometry.page_bytes} bytes", page.page_bytes)
            for record in records:
                page = apply(page, record, self._blob_page)
        return page

    def _newest_image(self, page_id: int) -> tuple[Image | None, Layer | None]:
        newest: Image | None = None
        found: Layer | None = None
        for layer in self._images:
            if not layer.overlaps(page_id, newest.lsn if newest else 0, self.at):
                continue
            for block in _blocks_of(layer, page_id):
                for image in _kept(self._listed, layer, block, layer.images).get(page_id, ()):
                    if self.history.contains(image.origin, image.lsn) and (newest is None or image.lsn > newest.lsn):
                        newest, found = image, layer
        return newest, found

    def _records(self, page_id: int, above: int) -> list[Record]:
        """The records of a page above an LSN, ascending."""
        found: dict[int, Record] = {}
        wanted = [self._recent.get(page_id, [])]
        for layer in self._deltas:
            if layer.overlaps(page_id, above, self.at):
                wanted += [
                    _kept(self._decoded, layer, block, layer.records).get(page_id, [])
                    for block in _blocks_of(layer, page_id)
                ]
        for record in (record for some in wanted for record in some):
            if record.lsn > above and self.history.contains(record.origin, record.lsn):
                known = found.setdefault(record.lsn, record)
                with within(f"page {page_id}"):
                    check(known == record, f"one record of LSN {record.lsn}", "two that differ")
        return [found[lsn] for lsn in sorted(found)]

    def _blob_page(self, blob: int, index: int, page_id: int) -> Page:
        check(blob in self._blobs, f"blob {blob:032x}", "none")
        return self._blobs[blob].page(index, page_id)


def _kept(
    known: OrderedDict[tuple[str, int], dict[int, list[_I]]],
    layer: Layer,
    block: Block,
    read: Callable[[Block], Iterable[_I]],
) -> dict[int, list[_I]]:
    """What a block lists, by page; the blocks used last are kept."""
    place = (layer.name, block.offset)
    pages = known.get(place)
    if pages is None:
        pages = known[place] = {}
        for item in read(block):
            pages.setdefault(item.page, []).append(item)
        if len(known) > _BLOCKS_KEPT:
            known.popitem(last=False)
    known.move_to_end(place)
    return pages


def _blocks_of(layer: Layer, page_id: int) -> Iterable[Block]:
    """The listing blocks that may have a page: blocks are sorted by page, and a page may go over several."""
    blocks = layer.meta.blocks
    at = bisect_left(blocks, page_id, key=lambda block: block.last_page)
    while at < len(blocks) and blocks[at].first_page <= page_id:
        yield blocks[at]
        at += 1
