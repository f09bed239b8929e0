"""What an engine gives the suite of the outbox."""

from collections.abc import AsyncIterator

import pytest

from chassis.clock import FakeClock
from chassis.store.port import DocumentStore


class Conformance:
    """Base of the suite; an engine overrides `store`. The relay's clock stands still unless a test moves it."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[DocumentStore]:
        raise NotImplementedError
        yield

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()
