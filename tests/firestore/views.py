"""Sorted views of a collection, kept up to date: one for each way in which it is queried, as an index would be.

A view groups documents by the values of the fields fixed by equality, each group in a total order. So a page costs what it
returns, and the stand-in is quick enough to measure the adapter against.
"""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from functools import total_ordering
from operator import itemgetter
from typing import Any, TypeAlias

from tests.firestore.indexes import DESCENDING, Orders
from tests.firestore.stored import Stored
from tests.firestore.values import Path, SortKey

Position: TypeAlias = tuple[Any, ...]
"""One part for each order, reversed for a descending one; documents' names make it unique."""
Entry: TypeAlias = tuple[Position, Stored]


@total_ordering
@dataclass(frozen=True, slots=True)
class Descending:
    key: SortKey

    def __lt__(self, other: "Descending") -> bool:
        return other.key < self.key


def part(key: SortKey, direction: str) -> SortKey | Descending:
    return Descending(key) if direction == DESCENDING else key


@dataclass(slots=True)
class View:
    """Documents that have all fields of `fixed` and `order`."""

    fixed: tuple[Path, ...]
    order: Orders
    groups: dict[tuple[SortKey, ...], list[Entry]] = field(default_factory=dict)

    def add(self, document: Stored) -> None:
        place = self._place(document)
        if place is not None:
            group, position = place
            insort(self.groups.setdefault(group, []), (position, document), key=itemgetter(0))

    def remove(self, document: Stored) -> None:
        place = self._place(document)
        if place is not None:
            group, position = place
            entries = self.groups[group]
            del entries[bisect_left(entries, position, key=itemgetter(0))]
            if not entries:
                del self.groups[group]

    def group(self, values: tuple[SortKey, ...]) -> list[Entry]:
        return self.groups.get(values, [])

    def _place(self, document: Stored) -> tuple[tuple[SortKey, ...], Position] | None:
        group = tuple(document.key(path) for path in self.fixed)
        keys = [(document.key(path), direction) for path, direction in self.order]
        if None in group or any(key is None for key, _ in keys):
            return None
        return (
            tuple(key for key in group if key is not None),
            tuple(part(key, direction) for key, direction in keys if key is not None),
        )


def index_of(entries: list[Entry], position: Position, *, before: bool) -> int:
    """How many entries lie before the position, a prefix of the order; it lies before those equal to it, or behind them."""
    search = bisect_left if before else bisect_right
    return search(entries, position, key=lambda entry: entry[0][: len(position)])


@dataclass(slots=True)
class Collection:
    """The documents right under one path."""

    documents: dict[str, Stored] = field(default_factory=dict)
    views: dict[tuple[tuple[Path, ...], Orders], View] = field(default_factory=dict)

    def view(self, fixed: tuple[Path, ...], order: Orders) -> View:
        found = self.views.get((fixed, order))
        if found is None:
            found = self.views[fixed, order] = View(fixed, order)
            for document in self.documents.values():
                found.add(document)
        return found

    def place(self, name: str, document: Stored | None) -> None:
        """Put the document in the place of what is there; None removes it."""
        old = self.documents.pop(name, None)
        if document is not None:
            self.documents[name] = document
        for view in self.views.values():
            if old is not None:
                view.remove(old)
            if document is not None:
                view.add(document)
