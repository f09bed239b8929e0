"""A page of a query, bounded in bytes as well as in number: what every list of a service is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from chassis.store.port import Document, DocumentStore, Order, Query, Value

PAGE_BYTES: Final = 2 * 1024 * 1024
"""A page ends early rather than grow past this: the message it goes in has a limit."""

STEP: Final = 200
"""Documents fetched at once, so that a page of large ones is cut before all of them are in memory."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Page(Generic[_T]):
    """`last` is the cursor of the last item if there are more behind it, else None."""

    items: list[_T]
    last: tuple[Value, ...] | None


async def fetch(
    documents: DocumentStore, query: Query, size: int, read: Callable[[Document], tuple[_T, int]], step: int = STEP
) -> Page[_T]:
    """Up to `size` items of `query`, whose limit does not count. `read` makes an item of a document, and says how many
    bytes it weighs; the first is on the page whatever it weighs."""
    items: list[_T] = []
    last: Document | None = None
    weight = 0
    after = query.after
    while True:
        limit = min(step, size + 1 - len(items))
        found = await documents.query(replace(query, after=after, limit=limit))
        for document in found:
            item, bytes_of = read(document)
            weight += bytes_of
            if last is not None and (len(items) == size or weight > PAGE_BYTES):
                return Page(items, cursor(last, query.order))
            items.append(item)
            last = document
        if len(found) < limit:
            return Page(items, None)
        after = cursor(found[-1], query.order)


def cursor(document: Document, order: Sequence[Order]) -> tuple[Value, ...]:
    """`Query.after` of what comes behind a document."""
    return (*(document.fields[by.field] for by in order), document.key.id)
