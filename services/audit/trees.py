"""The Merkle trees of all tenants, as the store has them: their right edges, and the hashes of proofs.

What is kept in memory is never wrong, only short: edges grow by the batches that were committed since, and whole tiles
never change.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from chassis.store.port import DocumentStore, StoreCorrupt
from services.audit.edge import DEPTH, WIDTH, Edge, cut, place, root_in, tower
from services.audit.merkle import HASH_BYTES, Node, Span, fold, nodes
from services.audit.records import Batch, batch_of, batches_down, tile_key, tile_of

EDGES: Final = 1_000
"""Tenants whose edge is kept, of some 20 KB each."""
TILES: Final = 1_024
"""Tiles kept, of 16 to 32 KB each."""

_FIRST_PAGE: Final = 2
_NEXT_PAGES: Final = 64


@dataclass(frozen=True, slots=True)
class _Whole:
    """A tile with all nodes within it: a proof takes one of each level."""

    level: int
    index: int
    tower: tuple[bytes, ...]
    above: tuple[bytes, ...]


_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Kept(Generic[_K, _V]):
    """What was used last, at most so many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[_K, _V] = OrderedDict()

    def get(self, key: _K) -> _V | None:
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def put(self, key: _K, value: _V) -> None:
        self._held[key] = value
        self._held.move_to_end(key)
        if len(self._held) > self._most:
            self._held.popitem(last=False)

    def drop(self, key: _K) -> None:
        self._held.pop(key, None)


class Trees:
    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self._edges: Kept[str, Edge] = Kept(EDGES)
        self._tiles: Kept[tuple[str, int, int], _Whole] = Kept(TILES)

    async def edge(self, tenant: str) -> Edge:
        """The edge of the tree as it was when this process last looked: for who commits on it and is told if it moved."""
        return self._edges.get(tenant) or await self.newest(tenant)

    async def newest(self, tenant: str) -> Edge:
        """The edge of the tree as it is now."""
        known = self._edges.get(tenant) or Edge()
        batches = await self._newest_batches(tenant, known.size)
        if not batches or batches[0].end <= known.size:
            return known
        end = batches[0].end
        base = known
        if known.size < end // WIDTH * WIDTH:
            base = Edge.behind(*await self._last_tile(tenant, end // WIDTH - 1))
        leaves: list[bytes] = []
        for batch in reversed(batches):
            if batch.end > base.size:
                if batch.first > base.size + len(leaves):
                    raise _incomplete()
                leaves += cut(batch.leaves[max(0, base.size + len(leaves) - batch.first) * HASH_BYTES :])
        edge, _ = base.extended(leaves)
        if edge.size != end:
            raise _incomplete()
        self._edges.put(tenant, edge)
        return edge

    def grown(self, tenant: str, edge: Edge) -> None:
        """A batch was committed by this process, which makes this the edge."""
        known = self._edges.get(tenant)
        if known is None or known.size < edge.size:
            self._edges.put(tenant, edge)

    async def reaching(self, tenant: str, size: int) -> Edge:
        """An edge of a tree of at least that size if there is one, or the newest."""
        edge = await self.edge(tenant)
        return edge if edge.size >= size else await self.newest(tenant)

    async def spans(self, tenant: str, edge: Edge, spans: Sequence[Span]) -> list[bytes]:
        """The hash of each span, all of which lie within the edge's tree."""
        parts = [nodes(span) for span in spans]
        hashes = await self._nodes(tenant, edge, [node for part in parts for node in part])
        return [fold([hashes[node] for node in part]) for part in parts]

    async def root(self, tenant: str, edge: Edge, size: int) -> bytes:
        """The root of the tree of a size, which is at most the edge's."""
        return (await self.spans(tenant, edge, [(0, size)]))[0]

    async def _nodes(self, tenant: str, edge: Edge, wanted: Sequence[Node]) -> dict[Node, bytes]:
        found: dict[Node, bytes] = {}
        missing: dict[tuple[int, int], list[Node]] = {}
        for node in wanted:
            level, first, count = place(node)
            hashes = edge.hashes(level, first, count)
            if hashes is not None:
                found[node] = root_in(hashes)
            else:
                missing.setdefault((level, first // WIDTH), []).append(node)
        for tile in await self._whole_tiles(tenant, list(missing)):
            for node in missing[tile.level, tile.index]:
                start = (node.at << node.level % DEPTH) % WIDTH >> node.level % DEPTH
                row = tile.tower[node.level % DEPTH]
                found[node] = row[start * HASH_BYTES : (start + 1) * HASH_BYTES]
        return found

    async def _last_tile(self, tenant: str, index: int) -> tuple[int, tuple[bytes, ...]]:
        (tile,) = await self._whole_tiles(tenant, [(0, index)])
        return index, tile.above

    async def _whole_tiles(self, tenant: str, wanted: Sequence[tuple[int, int]]) -> list[_Whole]:
        tiles = {at: self._tiles.get((tenant, *at)) for at in wanted}
        missing = [at for at, tile in tiles.items() if tile is None]
        if missing:
            documents = await self._documents.get_many([tile_key(tenant, *at) for at in missing])
            for at, document in zip(missing, documents, strict=True):
                if document is None:
                    raise _incomplete()
                tile = tile_of(document)
                held = tiles[at] = _Whole(*at, tower(tile.hashes), tile.above)
                self._tiles.put((tenant, *at), held)
        return [tile for tile in tiles.values() if tile is not None]

    async def _newest_batches(self, tenant: str, known: int) -> list[Batch]:
        """The newest batches, newest first, down to what is known, or to the last whole tile where that is nearer."""
        found: list[Batch] = []
        below, page = None, _FIRST_PAGE
        while True:
            documents = await self._documents.query(batches_down(tenant, below, page))
            found += map(batch_of, documents)
            if len(documents) < page or found[-1].first <= max(known, found[0].end // WIDTH * WIDTH):
                return found
            below, page = found[-1].first - 1, _NEXT_PAGES


def _incomplete() -> StoreCorrupt:
    return StoreCorrupt("The hashes of the audit log are not complete: something else than this service wrote to it.")
