"""Moving house: all documents of a service, or those of some tenants, from one store to another.

The source is read in the order of its keys, so that a position is one key: what is copied is written down after each
batch, and a copy that was broken off goes on from there. Writing a batch twice does no harm. At the end the target is read
back and compared: by collection, how many documents, and the sum of their hashes, which the order does not change.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

from chassis.store.port import Document, DocumentStore, Fields, Key, Put, Value, Write
from chassis.store.values import pack

PAGE: Final = 200
_BATCH_BYTES: Final = 4 * 1024 * 1024
_MODULUS: Final = 1 << 256
_VERSION: Final = 1


class Dumpable(Protocol):
    """What an engine can do besides the port: say all that it has."""

    async def page(self, tenant: str | None, after: Key | None, limit: int) -> list[Document]:
        """The next documents behind `after`, at most `limit`, in the engine's own order of keys; of one tenant or of
        all. Empty when there are no more. Raises what reading a store raises."""
        ...


class CopyRefused(Exception):
    """The copy cannot begin, or did not succeed; the message says why and what to do."""


@dataclass(slots=True)
class Tally:
    """Collection → (documents, sum of their hashes): equal for equal sets of documents, whatever engine holds them."""

    sums: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, document: Document) -> int:
        """Returns the document's size in bytes."""
        text, size = pack(document.key, _canonical(document.fields))
        parts = (document.key.tenant, document.key.collection, document.key.id, text)
        digest = sha256(json.dumps(parts).encode()).digest()
        count, total = self.sums.get(document.key.collection, (0, 0))
        hashed = (total + int.from_bytes(digest, "big")) % _MODULUS
        self.sums[document.key.collection] = (count + 1, hashed)
        return size

    @property
    def documents(self) -> int:
        return sum(count for count, _ in self.sums.values())


@dataclass(slots=True)
class Progress:
    """How far a copy has come; `what` tells one copy from another."""

    what: Mapping[str, Any]
    scope: int = 0
    """Which of the tenants is being copied."""
    after: Key | None = None
    tally: Tally = field(default_factory=Tally)

    @classmethod
    def load(cls, path: Path, what: Mapping[str, Any]) -> "Progress":
        """What the file says, or a beginning when there is none. Raises CopyRefused for another copy's file."""
        if not path.exists():
            return cls(what)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            same = kept["format"] == _VERSION and kept["what"] == dict(what)
            after = None if kept["after"] is None else Key(*kept["after"])
            sums = {name: (count, int(total, 16)) for name, (count, total) in kept["sums"].items()}
            scope = int(kept["scope"])
        except (ValueError, KeyError, TypeError) as broken:
            raise CopyRefused(f"{path} is no record of a copy: remove it to begin anew.") from broken
        if not same:
            raise CopyRefused(
                f"{path} is the record of another copy: finish that one, or remove the file to begin anew."
            )
        return cls(what, scope, after, Tally(sums))

    def save(self, path: Path) -> None:
        after = self.after
        kept = {
            "format": _VERSION,
            "what": dict(self.what),
            "scope": self.scope,
            "after": None if after is None else [after.tenant, after.collection, after.id],
            "sums": {name: [count, f"{total:x}"] for name, (count, total) in self.tally.sums.items()},
        }
        beside = path.with_name(path.name + ".new")
        beside.write_text(json.dumps(kept), encoding="utf-8")
        beside.replace(path)

    def forget(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    @property
    def begun(self) -> bool:
        return self.scope > 0 or self.after is not None


async def copy(
    source: Dumpable,
    target: DocumentStore,
    target_dump: Dumpable,
    tenants: Sequence[str],
    record: Path,
    what: Mapping[str, Any],
    *,
    overwrite: bool,
    told: Callable[[str, int], None],
) -> Tally:
    """Copy and compare; returns what was copied. No tenants mean all.

    `told` is called with `copied` or `compared` and the number of documents so far. Raises CopyRefused, and what the stores
    raise: then `record` remains, and the same call goes on from there.
    """
    progress = Progress.load(record, what)
    scopes: tuple[str | None, ...] = tuple(tenants) or (None,)
    if not progress.begun and not overwrite:
        await _check_empty(target_dump, scopes)
    while progress.scope < len(scopes):
        page = await source.page(scopes[progress.scope], progress.after, PAGE)
        if not page:
            progress.scope, progress.after = progress.scope + 1, None
        else:
            await _write(target, page, progress.tally)
            progress.after = page[-1].key
        progress.save(record)
        told("copied", progress.tally.documents)
    await _compare(target_dump, scopes, progress.tally, told)
    progress.forget(record)
    return progress.tally


async def _write(target: DocumentStore, page: Sequence[Document], tally: Tally) -> None:
    counted = Tally(dict(tally.sums))
    batch: list[Write] = []
    weight = 0
    for document in page:
        size = counted.add(document)
        if batch and weight + size > _BATCH_BYTES:
            await target.commit(batch)
            batch, weight = [], 0
        batch.append(Put(document.key, document.fields))
        weight += size
    await target.commit(batch)
    tally.sums = counted.sums


async def _check_empty(target: Dumpable, scopes: Sequence[str | None]) -> None:
    for tenant in scopes:
        if await target.page(tenant, None, 1):
            whose = "documents" if tenant is None else f"documents of tenant {tenant!r}"
            raise CopyRefused(
                f"The target holds {whose} already, and copying would mix the two: choose an empty one, or say "
                "--overwrite to replace documents of the same id."
            )


async def _compare(
    target: Dumpable, scopes: Sequence[str | None], wanted: Tally, told: Callable[[str, int], None]
) -> None:
    found = Tally()
    for tenant in scopes:
        after: Key | None = None
        while page := await target.page(tenant, after, PAGE):
            for document in page:
                found.add(document)
            after = page[-1].key
            told("compared", found.documents)
    names = sorted(wanted.sums.keys() | found.sums.keys())
    differing = [name for name in names if wanted.sums.get(name) != found.sums.get(name)]
    if differing:
        told_of = ", ".join(
            f"{name} ({wanted.sums.get(name, (0, 0))[0]} copied, {found.sums.get(name, (0, 0))[0]} found)"
            for name in differing
        )
        raise CopyRefused(
            f"The target does not hold what was copied: {told_of}. Somebody wrote to it meanwhile, or it held other "
            "documents before. Remove the copy's record and begin anew, into an empty target."
        )


def _canonical(fields: Fields) -> dict[str, Value]:
    return {name: _sorted(fields[name]) for name in sorted(fields)}


def _sorted(value: Value) -> Value:
    if isinstance(value, Mapping):
        return _canonical(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_sorted(item) for item in value]
    return value
