"""The Merkle tree of RFC 6962, section 2.1, from its leaves in order: what is remembered is the roots of whole subtrees."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

EMPTY: Final = sha256(b"").digest()
_NODE: Final = b"\x01"


class Tree:
    """A tree that grows at its end. Hashes are 32 bytes; memory is one hash for each bit of the size."""

    __slots__ = ("_whole", "size")

    def __init__(self) -> None:
        self.size = 0
        self._whole: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """One leaf's hash more."""
        whole, left = self._whole, self.size
        self.size = left + 1
        while left & 1:
            leaf = sha256(_NODE + whole.pop() + leaf).digest()
            left >>= 1
        whole.append(leaf)

    def root(self) -> bytes:
        if not self._whole:
            return EMPTY
        *others, root = self._whole
        for hashed in reversed(others):
            root = sha256(_NODE + hashed + root).digest()
        return root

    def copy(self) -> "Tree":
        """Another tree with the same leaves."""
        made = Tree()
        made.size, made._whole = self.size, list(self._whole)
        return made


def includes(root: bytes, size: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof (RFC 9162, section 2.1.3.2) shows that the tree of that root and size has the leaf there."""
    if not 0 <= index < size:
        return False
    at, last, hashed = index, size - 1, leaf
    for each in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            hashed = sha256(_NODE + each + hashed).digest()
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            hashed = sha256(_NODE + hashed + each).digest()
        at, last = at >> 1, last >> 1
    return last == 0 and hashed == root


def extends(first: bytes, first_size: int, second: bytes, second_size: int, proof: Sequence[bytes]) -> bool:
    """Whether the proof (RFC 9162, section 2.1.4.2) shows that the tree of root `first` is the beginning of `second`."""
    if not 0 < first_size <= second_size:
        return first_size == 0 and not proof
    if first_size == second_size:
        return not proof and first == second
    hashes = list(proof)
    if first_size & (first_size - 1) == 0:
        hashes.insert(0, first)
    if not hashes:
        return False
    at, last = first_size - 1, second_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = hashes[0]
    for each in hashes[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = sha256(_NODE + each + old).digest(), sha256(_NODE + each + new).digest()
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = sha256(_NODE + new + each).digest()
        at, last = at >> 1, last >> 1
    return last == 0 and old == first and new == second
