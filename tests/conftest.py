"""Fixtures that every test may ask for."""

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from tests.support.platform import any_platform, fresh_platform
from tests.support.stores import firestore_settings, store_settings
from tests.support.valkey import own_valkey, valkey, valkey_server

__all__ = [
    "any_platform",
    "firestore_settings",
    "fresh_platform",
    "own_logs",
    "own_valkey",
    "store_settings",
    "valkey",
    "valkey_server",
]

# Hypothesis tries the constants of our modules, those that happen to be imported: which are they depends on what else a
# worker has run, and changes in the middle of a test. There is no setting for it.
vars(providers)["is_local_module_file"] = lambda _path: False
# The same examples on every run, and no limit on the time of one: the machine may be busy with other things.
settings.register_profile("bas", deadline=None, derandomize=True)
settings.load_profile("bas")


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """A test that runs a command configures the logs for its output, which is closed when it ends: the next test's lines
    must not go there."""
    yield
    structlog.reset_defaults()
