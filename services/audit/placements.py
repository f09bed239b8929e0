"""Where in the log entries are: which sequence the first entry of an arrival has, once it has one."""

from collections.abc import Iterable, Mapping
from typing import Final

from chassis.store.port import DocumentStore
from services.audit.records import arrival_key, first_of
from services.audit.trees import Kept

REMEMBERED: Final = 20_000


class Placements:
    """A placement never changes, so it is remembered."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self._known: Kept[str, int] = Kept(REMEMBERED)

    def place(self, arrival: str, first: int) -> None:
        """It was sequenced just now, by this process."""
        self._known.put(arrival, first)

    async def of(self, arrivals: Iterable[str]) -> Mapping[str, int]:
        """The first sequence of each arrival that has been sequenced; at most 500."""
        found: dict[str, int] = {}
        missing = []
        for arrival in dict.fromkeys(arrivals):
            known = self._known.get(arrival)
            if known is None:
                missing.append(arrival)
            else:
                found[arrival] = known
        if missing:
            documents = await self._documents.get_many([arrival_key(arrival) for arrival in missing])
            for arrival, document in zip(missing, documents, strict=True):
                first = None if document is None else first_of(document)
                if first is not None:
                    self._known.put(arrival, first)
                    found[arrival] = first
        return found
