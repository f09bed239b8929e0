"""Tiles, and the right edge of a growing tree. No I/O.

A tile is 256 hashes of one level, next to each other: level 0 of leaves, level 1 of what level-0 tiles hash to, and so
on. The edge is what is not in a whole tile yet, at most 255 hashes a level, so that a tree of any size is its whole tiles
and its edge. A level-0 tile also says what the edge above it was when it was made: so the edge of the newest tree can be
had again from one tile and the leaves behind it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from services.audit.merkle import HASH_BYTES, Node, fold, node_hash, nodes, whole

WIDTH: Final = 256
DEPTH: Final = 8
"""Levels of nodes in one tile: 2^8 = 256."""


@dataclass(frozen=True, slots=True)
class Tile:
    """`hashes` are 256 times 32 bytes; `above` is the edge of the levels above a level-0 tile once it is there."""

    level: int
    index: int
    hashes: bytes
    above: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """The tree's size, and for each level the hashes behind its last whole tile, joined."""

    size: int = 0
    partial: tuple[bytes, ...] = (b"",)

    @staticmethod
    def behind(index: int, above: tuple[bytes, ...]) -> "Edge":
        """The edge of the tree that ends with that level-0 tile, `above` being what the tile says of the levels above."""
        return Edge((index + 1) * WIDTH, (b"", *above))

    def extended(self, leaves: Iterable[bytes]) -> "tuple[Edge, list[Tile]]":
        """The edge with more leaves, and the tiles that they make whole, lower levels first."""
        partial = list(self.partial)
        size = self.size
        tiles: list[Tile] = []
        for leaf in leaves:
            partial[0] += leaf
            size += 1
            if size % WIDTH == 0:
                tiles += _closed(partial, size)
        return Edge(size, tuple(partial)), tiles

    def hashes(self, level: int, first: int, count: int) -> bytes | None:
        """`count` hashes of the tile level from `first` on, or None where they are in a whole tile."""
        start = first % WIDTH
        if level >= len(self.partial) or first // WIDTH != self.size >> DEPTH * (level + 1):
            return None
        return self.partial[level][start * HASH_BYTES : (start + count) * HASH_BYTES]


def place(node: Node) -> tuple[int, int, int]:
    """(tile level, first, count): the hashes of one tile that the node is made of."""
    level, within = divmod(node.level, DEPTH)
    return level, node.at << within, 1 << within


def root_in(hashes: bytes) -> bytes:
    """What joined hashes of neighbours, a power of two of them, hash to."""
    return whole(cut(hashes))


def cut(joined: bytes) -> Sequence[bytes]:
    return [joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES)]


def tower(hashes: bytes) -> tuple[bytes, ...]:
    """All nodes within a whole tile, joined for each level, from its hashes up to the one that they hash to."""
    levels = [hashes]
    while len(levels[-1]) > HASH_BYTES:
        below = cut(levels[-1])
        levels.append(b"".join([node_hash(below[at], below[at + 1]) for at in range(0, len(below), 2)]))
    return tuple(levels)


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over so few leaves that all of them are at hand."""
    return fold([whole(leaves[node.at << node.level : node.at + 1 << node.level]) for node in nodes((0, len(leaves)))])


def _closed(partial: list[bytes], size: int) -> list[Tile]:
    """The whole tiles of a tree whose last level-0 tile has just become whole; `partial` goes on without them."""
    made: list[Tile] = []
    level = 0
    while len(partial[level]) == WIDTH * HASH_BYTES:
        hashes, partial[level] = partial[level], b""
        made.append(Tile(level, (size >> DEPTH * (level + 1)) - 1, hashes))
        if level + 1 == len(partial):
            partial.append(b"")
        partial[level + 1] += root_in(hashes)
        level += 1
    made[0] = Tile(0, made[0].index, made[0].hashes, tuple(partial[1:]))
    return made
