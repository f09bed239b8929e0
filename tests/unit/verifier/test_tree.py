"""Roots and proofs, held to pymerkle, which is somebody else's RFC 6962."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from launcher.verifier.tree import EMPTY, Tree, extends, includes

MOST = 130
DATA = [b"entry %d" % number for number in range(MOST)]
LEAVES = [sha256(b"\x00" + each).digest() for each in DATA]
REFERENCE = InmemoryTree(algorithm="sha256")
for _each in DATA:
    REFERENCE.append_entry(_each)


def root(size: int) -> bytes:
    tree = Tree()
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    return tree.root()


def inclusion(index: int, size: int) -> list[bytes]:
    """The path of pymerkle begins with the leaf itself."""
    return list(REFERENCE.prove_inclusion(index + 1, size).path)[1:]


def test_the_empty_tree() -> None:
    assert Tree().root() == EMPTY == sha256().digest()


def test_roots() -> None:
    tree = Tree()
    for size in range(1, MOST + 1):
        tree.append(LEAVES[size - 1])
        assert tree.root() == REFERENCE.get_root(size)


def test_a_copy_grows_by_itself() -> None:
    tree = Tree()
    tree.append(LEAVES[0])
    other = tree.copy()
    other.append(LEAVES[1])
    assert (tree.size, tree.root(), other.root()) == (1, LEAVES[0], root(2))


sizes = st.integers(1, MOST)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_inclusion_proofs(data: st.DataObject) -> None:
    size = data.draw(sizes)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion(index, size)
    assert includes(root(size), size, index, LEAVES[index], proof)
    assert not includes(root(size), size, index, LEAVES[index - 1 if index else MOST - 1], proof)
    assert not includes(root(size), size, index, LEAVES[index], [*proof, EMPTY])
    if proof:
        assert not includes(root(size), size, index, LEAVES[index], proof[:-1])
        bent = [*proof]
        at = data.draw(st.integers(0, len(proof) - 1))
        bent[at] = EMPTY
        assert not includes(root(size), size, index, LEAVES[index], bent)


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_what_is_in_no_tree(index: int, size: int) -> None:
    assert not includes(root(3), size, index, LEAVES[0], [])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_consistency_proofs(data: st.DataObject) -> None:
    second = data.draw(sizes)
    first = data.draw(st.integers(1, second))
    proof = list(_consistency(first, second))
    assert extends(root(first), first, root(second), second, proof)
    if first < second:
        assert not extends(EMPTY, first, root(second), second, proof)
        assert not extends(root(first), first, EMPTY, second, proof)
        assert not extends(root(first), first, root(second), second, proof[:-1])
    assert not extends(root(first), first, root(second), second, [*proof, EMPTY])


def test_consistency_of_what_cannot_be() -> None:
    assert not extends(root(3), 3, root(2), 2, [])
    assert extends(EMPTY, 0, root(2), 2, [])


def _consistency(first: int, second: int) -> list[bytes]:
    """RFC 6962, section 2.1.2, word for word, over the leaves."""

    def subproof(size: int, low: int, high: int, *, known: bool) -> list[bytes]:
        count = high - low
        if size == count:
            return [] if known else [_root(low, high)]
        split = 1 << (count - 1).bit_length() - 1
        if size <= split:
            return [*subproof(size, low, low + split, known=known), _root(low + split, high)]
        return [*subproof(size - split, low + split, high, known=False), _root(low, low + split)]

    return subproof(first, 0, second, known=True)


def _root(low: int, high: int) -> bytes:
    tree = Tree()
    for leaf in LEAVES[low:high]:
        tree.append(leaf)
    return tree.root()
