"""The tree against an implementation that is not ours, and its tiles against the tree."""

from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from launcher.verifier.tree import extends, includes
from services.audit import merkle
from services.audit.edge import DEPTH, WIDTH, Edge, Tile, cut, place, root_in, root_of, tower
from services.audit.merkle import Node, Span, fold, inclusion, leaf_hash, node_hash, nodes

SIZES = st.integers(1, 700)

LEAVES = [leaf_hash(str(number).encode()) for number in range(700)]


@cache
def direct(low: int, high: int) -> bytes:
    """RFC 6962, section 2.1, word by word."""
    if high - low == 1:
        return LEAVES[low]
    split = 1
    while split * 2 < high - low:
        split *= 2
    return node_hash(direct(low, low + split), direct(low + split, high))


def hashed(spans: list[Span]) -> list[bytes]:
    return [fold([direct(node.at << node.level, node.at + 1 << node.level) for node in nodes(span)]) for span in spans]


def test_the_empty_tree() -> None:
    assert fold([]) == merkle.EMPTY == sha256(b"").digest()


@settings(max_examples=50)
@given(SIZES)
def test_a_root_is_that_of_its_nodes(size: int) -> None:
    assert hashed([(0, size)]) == [direct(0, size)] == [root_of(LEAVES[:size])]


@pytest.fixture(scope="module")
def independent() -> InmemoryTree:
    tree = InmemoryTree(algorithm="sha256")
    for number in range(260):
        tree.append_entry(str(number).encode())
    return tree


@settings(max_examples=50)
@given(data=st.data())
def test_roots_and_proofs_agree_with_another_implementation(independent: InmemoryTree, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 260))
    index = data.draw(st.integers(0, size - 1))
    assert independent.get_root(size) == direct(0, size)
    # Theirs begins with the leaf, and has what lies left of it in the order of the leaves.
    theirs = independent.prove_inclusion(index + 1, size).serialize()["path"]
    ours = hashed([(index, index + 1), *inclusion(index, size)])
    assert sorted(theirs) == sorted(each.hex() for each in ours)
    first = data.draw(st.integers(1, size))
    roots = independent.get_root(first), independent.get_root(size)
    assert extends(roots[0], first, roots[1], size, hashed(merkle.consistency(first, size)))


@settings(max_examples=50)
@given(data=st.data())
def test_proofs_hold_and_others_do_not(data: st.DataObject) -> None:
    size = data.draw(SIZES)
    index = data.draw(st.integers(0, size - 1))
    proof = hashed(inclusion(index, size))
    assert includes(direct(0, size), size, index, LEAVES[index], proof)
    assert not includes(direct(0, size), size, index, LEAVES[index - 1] if index else b"\0" * 32, proof)
    first = data.draw(st.integers(1, size))
    consistent = hashed(merkle.consistency(first, size))
    assert extends(direct(0, first), first, direct(0, size), size, consistent)
    if first < size:
        assert not extends(b"\0" * 32, first, direct(0, size), size, consistent)


@pytest.mark.parametrize("bad", [(0, 0), (3, 3), (-1, 3)])
def test_what_is_not_in_the_tree(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not in a tree"):
        inclusion(*bad)


@pytest.mark.parametrize("bad", [(0, 1), (3, 2)])
def test_what_is_no_beginning(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not the beginning"):
        merkle.consistency(*bad)


def test_tiles_and_edges_hold_every_node_of_a_tree_of_three_levels() -> None:
    """However it grew; and the last tile is enough to have the edge again."""
    size, step = WIDTH * WIDTH + 2 * WIDTH + 77, 301
    leaves = [number.to_bytes(32, "big") for number in range(size)]
    edge = Edge()
    tiles: dict[tuple[int, int], Tile] = {}
    for first in range(0, size, step):
        edge, made = edge.extended(leaves[first : first + step])
        tiles |= {(tile.level, tile.index): tile for tile in made}
    assert sorted(tiles) == [(0, index) for index in range(size // WIDTH)] + [(1, 0)]

    def node(wanted: Node) -> bytes:
        level, first, count = place(wanted)
        held = edge.hashes(level, first, count)
        if held is None:
            start = first % WIDTH * 32
            held = tiles[level, first // WIDTH].hashes[start : start + count * 32]
        return root_in(held)

    def root(size: int) -> bytes:
        return fold([node(each) for each in nodes((0, size))])

    for each in (1, 255, 256, 257, WIDTH * WIDTH - 1, WIDTH * WIDTH, WIDTH * WIDTH + 1, size):
        assert root(each) == root_of(leaves[:each])
    last = tiles[0, size // WIDTH - 1]
    again, _ = Edge.behind(last.index, last.above).extended(leaves[size // WIDTH * WIDTH :])
    assert again == edge
    assert 1 << DEPTH == WIDTH
    levels = tower(last.hashes)
    assert [len(level) for level in levels] == [32 << DEPTH - each for each in range(DEPTH + 1)]
    assert levels[3][:32] == root_in(last.hashes[: 8 * 32])
    assert levels[DEPTH] == root_in(last.hashes)
    assert cut(b"ab" * 32) == [b"ab" * 16, b"ab" * 16]
