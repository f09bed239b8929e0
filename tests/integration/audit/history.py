"""What must be true of a log, whatever happened while it was made: read from its documents, with a tree that is not the
service's."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

from chassis.store.port import Document, DocumentStore, Key, Query
from launcher.verifier.tree import Tree
from services.audit.records import BATCHES, CHECKPOINTS, ENTRIES

_PAGE = 200


class Broken(AssertionError):
    """What does not hold."""


async def check(
    documents: DocumentStore, tenant: str, acknowledged: Mapping[str, str], seen: Iterable[tuple[int, bytes]]
) -> int:
    """`acknowledged` is entry id → key, `seen` are (size, root) of the checkpoints that anybody was ever shown. The size
    of the log. Raises Broken."""
    wanted = await _signed(documents, tenant, seen)
    tree, places = Tree(), dict[str, int]()
    async for document in _all(documents, tenant, BATCHES):
        if document.fields["first"] != tree.size:
            raise Broken(f"a batch begins at {document.fields['first']!r}, and the log is at {tree.size}")
        for entry_id, leaf in _entries(document):
            if entry_id in places:
                raise Broken(f"{entry_id} is in the log twice")
            places[entry_id] = tree.size
            entry = await documents.get(Key(tenant, ENTRIES, entry_id))
            if entry is None or entry.fields["leaf"] != leaf:
                raise Broken(f"{entry_id} is not what its leaf says")
            tree.append(leaf)
            if wanted.pop(tree.size, tree.root()) != tree.root():
                raise Broken(f"the checkpoint of {tree.size} is of another log")
    lost = acknowledged.keys() - places.keys()
    if lost:
        raise Broken(f"{len(lost)} acknowledged entries are not in the log")
    if wanted:
        raise Broken(f"checkpoints are longer than the log: {sorted(wanted)}")
    return tree.size


async def _signed(documents: DocumentStore, tenant: str, seen: Iterable[tuple[int, bytes]]) -> dict[int, bytes]:
    """Size → root of all checkpoints, those that were shown and those that are kept."""
    signed = {(size, root) for size, root in seen}
    async for document in _all(documents, tenant, CHECKPOINTS):
        signed.add((int(str(document.fields["size"])), _bytes(document.fields["root"])))
    if len(dict(signed)) < len(signed):
        raise Broken("two checkpoints of one size differ")
    return dict(signed)


def _entries(batch: Document) -> Iterator[tuple[str, bytes]]:
    leaves, ids = _bytes(batch.fields["leaves"]), batch.fields["ids"]
    assert isinstance(ids, list)
    for at, entry_id in enumerate(ids):
        yield str(entry_id), leaves[32 * at : 32 * at + 32]


async def _all(documents: DocumentStore, tenant: str, collection: str) -> AsyncIterator[Document]:
    after: tuple[str, ...] | None = None
    while page := await documents.query(Query(tenant, collection, after=after, limit=_PAGE)):
        for document in page:
            yield document
        after = (page[-1].key.id,)


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value
