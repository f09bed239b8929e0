"""One deployment for the tests of a module, which all run in its loop; each check has tenants of its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.isolation.deployment import deployed
from tests.isolation.world import World
from tests.support.valkey import Valkey


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    request: pytest.FixtureRequest, valkey_server: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    label = request.path.stem.replace("_", "-")
    valkey_server.command("FLUSHALL")
    async with deployed(tmp_path_factory.mktemp("isolation"), valkey_server.url) as deployment:
        yield World(deployment, label)
