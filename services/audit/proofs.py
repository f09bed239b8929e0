"""Proofs that an entry is in a tree, and that one tree is the beginning of another."""

from bas.audit.v2.audit_pb2 import ConsistencyProof, InclusionProof
from chassis.errors import ApiError, Code, invalid_field
from services.audit import merkle
from services.audit.checkpoints import Checkpoints, Signed
from services.audit.trees import Trees


class Proofs:
    def __init__(self, trees: Trees, checkpoints: Checkpoints) -> None:
        self._trees = trees
        self._checkpoints = checkpoints

    async def in_tree(self, tenant: str, sequence: int | None, size: int) -> InclusionProof:
        """The proof for the tree of that size, or of the newest checkpoint when it is 0. Raises FAILED_PRECONDITION when
        that tree does not have the entry, or there is none."""
        signed = await self._checkpoints.of(tenant, size)
        size = size or (0 if signed is None else signed.size)
        if sequence is None or sequence >= size:
            raise _not_in(size)
        return await self._inclusion(tenant, sequence, size, signed)

    async def inclusion(self, tenant: str, sequence: int, signed: Signed) -> InclusionProof:
        """The proof that a checkpoint's tree has the entry of that sequence."""
        return await self._inclusion(tenant, sequence, signed.size, signed)

    async def consistency(self, tenant: str, first: int, second: int) -> ConsistencyProof:
        """Raises OUT_OF_RANGE when the log is not that long, INVALID_ARGUMENT when the sizes are the wrong way round. A
        second size of 0 is that of the newest checkpoint."""
        if not second:
            newest = await self._checkpoints.newest(tenant)
            second = 0 if newest is None else newest.size
            if first > second:
                raise _too_short(second)
        if first > second:
            raise invalid_field("second_tree_size", "must not be smaller than first_tree_size")
        edge = await self._trees.reaching(tenant, second)
        if second > edge.size:
            raise _too_short(edge.size)
        hashes = await self._trees.spans(tenant, edge, merkle.consistency(first, second))
        return ConsistencyProof(first_tree_size=first, second_tree_size=second, hashes=hashes)

    async def _inclusion(self, tenant: str, sequence: int, size: int, signed: Signed | None) -> InclusionProof:
        edge = await self._trees.reaching(tenant, size)
        if size > edge.size:
            raise _not_in(size)
        spans = [(sequence, sequence + 1), *merkle.inclusion(sequence, size)]
        leaf, *hashes = await self._trees.spans(tenant, edge, spans)
        proof = InclusionProof(leaf_index=sequence, tree_size=size, leaf_hash=leaf, hashes=hashes)
        if signed is not None:
            proof.checkpoint.CopyFrom(self._checkpoints.message(tenant, signed))
        return proof


def _not_in(size: int) -> ApiError:
    return ApiError(
        Code.FAILED_PRECONDITION,
        "NOT_IN_TREE",
        f"The entry is not in a tree of {size} entries."
        if size
        else "There is no checkpoint yet that the entry could be proven to be in: try again in some seconds.",
    )


def _too_short(size: int) -> ApiError:
    return ApiError(Code.OUT_OF_RANGE, "TREE_TOO_SHORT", f"The log has {size} entries in a tree, and not that many.")
