"""What was parked, made pending again when somebody says so."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from chassis.outbox.records import PARKED, key_of, retried_fields
from chassis.store.port import Document, DocumentStore, PreconditionFailed, Update

_PAGE: Final = 200


async def retry(documents: DocumentStore, ids: Sequence[str]) -> int:
    """Make parked records pending again, each at its old place among those of its key that are still there; how many. Ids
    of what is not parked are nothing. Raises what the store raises."""
    count = 0
    for first in range(0, len(ids), _PAGE):
        found = await documents.get_many([key_of(each) for each in ids[first : first + _PAGE]])
        count += await _again(documents, [each for each in found if each is not None and PARKED in each.fields])
    return count


async def _again(documents: DocumentStore, parked: Sequence[Document]) -> int:
    """Together, or else one by one."""
    if not parked:
        return 0
    writes = [Update(each.key, retried_fields(each.fields), version=each.version) for each in parked]
    try:
        await documents.commit(writes)
    except PreconditionFailed:
        for write in writes:
            with suppress(PreconditionFailed):  # somebody else was faster
                await documents.commit([write])
    return len(parked)


class RetryFile:
    """How another process asks the one that has a store to itself: a file beside it, which is gone when that is done."""

    def __init__(self, store: Path, documents: DocumentStore | None = None) -> None:
        self._path = store.with_name(store.name + ".retry")
        self._documents = documents

    async def __call__(self) -> int:
        """For the relay: do what the file asks for, if there is one."""
        asked = await asyncio.to_thread(self._read)
        if asked is None or self._documents is None:
            return 0
        count = await retry(self._documents, asked)
        await asyncio.to_thread(self._path.unlink, missing_ok=True)
        return count

    def ask(self, ids: Sequence[str]) -> None:
        """Raises FileExistsError when something is asked for already, OSError when the folder cannot be written."""
        beside = self._path.with_name(self._path.name + ".new")
        beside.write_text(json.dumps(list(ids)), encoding="utf-8")
        try:
            self._path.hardlink_to(beside)  # as a rename, but not over another's
        finally:
            beside.unlink()

    @property
    def asked(self) -> bool:
        """Whether it is still to be done."""
        return self._path.exists()

    def withdraw(self) -> None:
        self._path.unlink(missing_ok=True)

    def _read(self) -> list[str] | None:
        """The ids; None when nothing is asked for. What cannot be read is removed."""
        try:
            asked = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            self.withdraw()
            return None
        return [str(each) for each in asked] if isinstance(asked, list) else None
