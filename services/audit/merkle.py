"""The Merkle tree of RFC 6962, section 2.1, over leaf hashes: which subtrees a root or a proof is made of. No I/O.

A span [low, high) of leaves is the tree over them; RFC 6962 splits it at the largest power of two that is smaller than
its size. A node (level, at) is the whole subtree over leaves [at << level, (at + 1) << level), which never
changes once they are there. Every span of a proof is made of a few nodes: `nodes` names them, `fold` joins their hashes.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple

HASH_BYTES: Final = 32
EMPTY: Final = sha256(b"").digest()
"""The root of the tree without leaves."""

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


class Node(NamedTuple):
    """A whole subtree of 2^level leaves."""

    level: int
    at: int


Span = tuple[int, int]
"""Leaves [low, high), at least one, where low is a multiple of the next power of two: as RFC 6962 cuts trees."""


def leaf_hash(data: bytes) -> bytes:
    return sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE + left + right).digest()


def inclusion(index: int, size: int) -> list[Span]:
    """The spans whose hashes prove that the leaf is in the tree of that size, from the leaf's sibling upwards.

    Raises ValueError unless 0 ≤ index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    spans: list[Span] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            spans.append((middle, high))
            high = middle
        else:
            spans.append((low, middle))
            low = middle
    return spans[::-1]


def consistency(first: int, second: int) -> list[Span]:
    """The spans whose hashes prove that the tree of size `first` is the beginning of that of size `second`.

    Raises ValueError unless 1 ≤ first ≤ second.
    """
    if not 1 <= first <= second:
        raise ValueError(f"a tree of {first} is not the beginning of one of {second}")
    spans: list[Span] = []
    low, high = 0, second
    while first != high:
        middle = low + _split(high - low)
        if first <= middle:
            spans.append((middle, high))
            high = middle
        else:
            spans.append((low, middle))
            low = middle
    if low > 0:
        spans.append((low, high))
    return spans[::-1]


def nodes(span: Span) -> list[Node]:
    """The largest nodes that make up the span, from the left: at most one for each bit of its size."""
    low, high = span
    found = []
    while low < high:
        level = (high - low).bit_length() - 1
        if low:
            level = min(level, (low & -low).bit_length() - 1)
        found.append(Node(level, low >> level))
        low += 1 << level
    return found


def fold(hashes: Sequence[bytes]) -> bytes:
    """The hash of a span from those of its `nodes`; of none, the root of the empty tree."""
    if not hashes:
        return EMPTY
    folded = hashes[-1]
    for left in reversed(hashes[:-1]):
        folded = node_hash(left, folded)
    return folded


def whole(hashes: Sequence[bytes]) -> bytes:
    """The hash of a node from those of the nodes below it on one level: a power of two of them."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[at], level[at + 1]) for at in range(0, len(level), 2)]
    return level[0]


def _split(size: int) -> int:
    """The largest power of two that is smaller than `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1
