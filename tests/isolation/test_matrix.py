"""No tenant sees, changes or guesses anything of another: every RPC, generated from the descriptors."""

import pytest

from tests.isolation import matrix
from tests.isolation.matrix import Cell, Refusals
from tests.isolation.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("refusals", matrix.refusals(), ids=str)
async def test_refuses(world: World, refusals: Refusals) -> None:
    await refusals.check(world)


@pytest.mark.parametrize("cell", matrix.cells(), ids=str)
async def test_keeps_apart(world: World, cell: Cell) -> None:
    await cell.check(world)
