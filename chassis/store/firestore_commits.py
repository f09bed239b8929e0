"""One commit: its writes as messages, which of them a refusal was about, and whether it was applied after all.

Every written document carries the commit's random id. An answer that was lost leaves three cases, told apart by reading
the documents' ids and times: one has our id (applied: a commit is atomic), the refused one was last written before our
first attempt (a true conflict), or somebody wrote it since. In the third nobody can tell, and that is what is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.cloud.firestore_v1.types import write as types
from grpc import StatusCode

from chassis.store.firestore_errors import MAYBE
from chassis.store.firestore_names import COMMIT, ID, decode_id
from chassis.store.firestore_values import MARKER, fill, moment_of, set_stamp, stamp
from chassis.store.port import (
    Committed,
    Create,
    Delete,
    DocumentExists,
    DocumentMissing,
    DocumentTooLarge,
    Key,
    PreconditionFailed,
    Put,
    StoreUnavailable,
    Update,
    VersionConflict,
    Write,
)
from chassis.store.values import MAX_COMMIT, MAX_DOCUMENT, check_key

MAX_WRITES: Final = 500
_Write: Final[Any] = types.Write.pb()
_LONGEST_VERSION: Final = 17


@dataclass(frozen=True, slots=True)
class Seen:
    """A document as it was found: when it was last written (microseconds), and by which commit."""

    updated: int
    marker: bytes


class PendingCommit:
    """A commit on its way. `marker` is 16 random bytes; `began` the latest server time known before its first attempt."""

    def __init__(self, marker: bytes, began: int) -> None:
        self.messages: list[Any] = []
        self.names: list[str] = []
        self.ambiguous = False
        """Whether an attempt failed that may have been applied."""
        self._writes: list[Write] = []
        self._marker = marker
        self._marked = False
        self._began = began
        self._size = 0

    def add(self, write: Write, name: str) -> None:
        """Raises ValueError and DocumentTooLarge."""
        check_key(write.key)
        message = _Write()
        if isinstance(write, Delete):
            message.delete = name
        else:
            document = message.update
            document.name = name
            size = fill(document, write.key, write.fields)
            self._size += size
            if self._size > MAX_COMMIT:
                raise DocumentTooLarge("The commit is larger than 10 MiB.")
            if decode_id(name.rpartition("/")[2]) is None:
                document.fields[ID].string_value = write.key.id
            if size + MARKER <= MAX_DOCUMENT:
                document.fields[COMMIT].bytes_value = self._marker
                self._marked = True
        _require(message.current_document, write)
        self.messages.append(message)
        self.names.append(name)
        self._writes.append(write)

    @property
    def loose(self) -> bool:
        """Whether repeating it could undo what others did since: a write that names no state it follows."""
        return any(not _bound(write) for write in self._writes)

    def answer(self, response: Any) -> Committed:
        versions = tuple(
            "" if isinstance(write, Delete) else str(stamp(result.update_time))
            for write, result in zip(self._writes, response.write_results, strict=True)
        )
        return Committed(versions, moment_of(stamp(response.commit_time)))

    def recognized(self, found: Mapping[str, Seen]) -> Committed | None:
        """The answer that was lost, when a document has our id. All of a commit have its time as their version."""
        ours = next((seen.updated for seen in found.values() if seen.marker == self._marker), None)
        if ours is None or not self._marked:
            return None
        versions = tuple("" if isinstance(write, Delete) else str(ours) for write in self._writes)
        return Committed(versions, moment_of(ours))

    def pin(self, found: Mapping[str, Seen], now: int) -> Committed | None:
        """Before repeating an ambiguous commit: bind loose writes to the state that was found, so that nothing written
        meanwhile is undone. A commit of deletes alone whose documents are gone is done. Raises StoreUnavailable."""
        if answer := self.recognized(found):
            return answer
        if all(isinstance(write, Delete) and not _bound(write) for write in self._writes) and not found:
            return Committed(("",) * len(self._writes), moment_of(now))
        for write, name, message in zip(self._writes, self.names, self.messages, strict=True):
            if _bound(write):
                continue
            seen = found.get(name)
            if seen is None:
                if isinstance(write, Put):
                    message.current_document.exists = False
            elif seen.updated > self._began:
                raise StoreUnavailable(MAYBE)
            else:
                set_stamp(message.current_document.update_time, seen.updated)
        return None

    def refusal(self, found: Mapping[str, Seen]) -> PreconditionFailed | StoreUnavailable:
        """The error for the first write that does not hold. The caller has looked for our id already."""
        failing = ((write, found.get(name)) for write, name in zip(self._writes, self.names, strict=True))
        for write, seen in failing:
            failure = _failing(write, seen)
            if failure is not None:
                known = not self.ambiguous or (seen is not None and seen.updated <= self._began)
                return failure if known else StoreUnavailable(MAYBE)
        # What was refused has changed again since. Somebody is at these documents; nothing of ours was applied.
        return StoreUnavailable(MAYBE) if self.ambiguous else self.contended()

    def alone(self, status: StatusCode) -> PreconditionFailed | None:
        """The error of a commit of one write, told from the status alone."""
        if len(self._writes) != 1 or self.ambiguous:
            return None
        write = self._writes[0]
        if isinstance(write, Create):
            return DocumentExists(write.key) if status is not StatusCode.NOT_FOUND else None
        if isinstance(write, Put) or status is StatusCode.ALREADY_EXISTS:
            return None
        return _absent(write)

    def contended(self) -> PreconditionFailed:
        """The store gave up between this commit and others."""
        versioned = (write.key for write in self._writes if isinstance(write, Update | Delete) and write.version)
        return VersionConflict(next(versioned, self._writes[0].key))


def _require(condition: Any, write: Write) -> None:
    if isinstance(write, Create):
        condition.exists = False
    elif isinstance(write, Put):
        return
    elif write.version is not None:
        condition.update_time.SetInParent()
        set_stamp(condition.update_time, _time(write.version))
    elif isinstance(write, Update) or write.must_exist:
        condition.exists = True


def _time(version: str) -> int:
    """Versions are update times; a text that no document ever had as its version is a time none ever had."""
    return int(version) if version.isascii() and version.isdigit() and len(version) <= _LONGEST_VERSION else 0


def _bound(write: Write) -> bool:
    return isinstance(write, Create) or (isinstance(write, Update | Delete) and write.version is not None)


def _failing(write: Write, seen: Seen | None) -> PreconditionFailed | None:
    if isinstance(write, Create):
        return DocumentExists(write.key) if seen is not None else None
    if isinstance(write, Put):
        return None
    if write.version is not None:
        return VersionConflict(write.key) if seen is None or seen.updated != _time(write.version) else None
    if isinstance(write, Update) or write.must_exist:
        return DocumentMissing(write.key) if seen is None else None
    return None


def _absent(write: Update | Delete) -> PreconditionFailed:
    return DocumentMissing(write.key) if write.version is None else VersionConflict(write.key)


def keys_once(writes: Sequence[Write]) -> None:
    """Raises ValueError for what is no commit."""
    if not 0 < len(writes) <= MAX_WRITES:
        raise ValueError(f"a commit has 1 to {MAX_WRITES} writes")
    keys: set[Key] = {write.key for write in writes}
    if len(keys) != len(writes):
        raise ValueError("a commit writes each key at most once")
