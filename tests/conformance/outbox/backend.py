"""What the suite of the outbox needs of an engine: a fixture `store`, open, with the outbox's schema."""

import pytest

from chassis.clock import FakeClock


class Conformance:
    """Base of the suite. The relay's clock stands still unless a test moves it."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()
