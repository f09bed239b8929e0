"""Reading what is pending so that nothing is overtaken: lanes that are complete, and the oldest of one that is too long."""

import heapq
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from chassis.outbox.records import LANE, Record, pending_after, pending_of, record_of
from chassis.store.port import DocumentStore, Key, Value

LONGEST: Final = 5_000
"""Records of one lane whose places are kept at once: about a megabyte."""


@dataclass(frozen=True, slots=True)
class Page:
    """`lanes` are whole, each in the order of its commits. `long` is a lane of more records than a page, and then there
    are no others. `more`: there may be lanes behind."""

    lanes: dict[str, list[Record]]
    long: str
    more: bool


class Backlog:
    """Over a service's store. `batch` is the size of a page."""

    def __init__(self, documents: DocumentStore, batch: int) -> None:
        self._documents = documents
        self._batch = batch
        self._seen = ""

    async def page(self, after: str) -> Page:
        """The lanes behind `after`. One answer is one look at the store: a lane that it shows whole lacks no record that
        was committed before another that it has. Raises what the store raises."""
        found = await self._documents.query(pending_after(after, self._batch))
        lanes: dict[str, list[Record]] = {}
        for document in found:
            self.saw(document.version)
            record = record_of(document)
            lanes.setdefault(record.lane, []).append(record)
        for records in lanes.values():
            records.sort(key=_place)
        full = len(found) >= self._batch
        if full:
            cut, _ = lanes.popitem()  # the rest of it may be on the next page
            if not lanes:
                return Page({}, cut, more=True)
        return Page(lanes, "", more=full)

    async def oldest(self, lane: str) -> AsyncIterator[list[Record]]:
        """The records of a long lane in the order of their commits, a page at a time; not all, but none out of order.

        The whole lane is looked at first, for its oldest record may be on its last page. While the pages are read, others
        are committed, and of two such only the later may be met: whatever is younger than the first page is left out.
        """
        places = await self._oldest_places(lane)
        for first in range(0, len(places), self._batch):
            keys = [key for _, key in places[first : first + self._batch]]
            found = await self._documents.get_many(keys)
            yield [record_of(each) for each in found if each is not None and LANE in each.fields]

    def saw(self, version: str) -> None:
        """A version that the store has reached: everything committed before it can be seen by now."""
        self._seen = max(self._seen, version)

    async def _oldest_places(self, lane: str) -> Sequence[tuple[tuple[str, int], Key]]:
        kept: list[tuple[tuple[str, int], Key]] = []
        known = self._seen
        after: tuple[Value, ...] | None = None
        while True:
            found = await self._documents.query(pending_of(lane, after, self._batch))
            if after is None:
                known = max([known, *(document.version for document in found)])
            places = ((record_of(each).place, each.key) for each in found if each.version <= known)
            kept = heapq.nsmallest(LONGEST, [*kept, *places], key=lambda pair: pair[0])
            if len(found) < self._batch:
                return kept
            after = (lane, found[-1].key.id)


def _place(record: Record) -> tuple[str, int]:
    return record.place
