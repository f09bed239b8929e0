"""Fixtures that every test may ask for."""

from hypothesis import settings

from tests.support.platform import any_platform, fresh_platform
from tests.support.stores import firestore_settings, store_settings
from tests.support.valkey import own_valkey, valkey, valkey_server

__all__ = [
    "any_platform",
    "firestore_settings",
    "fresh_platform",
    "own_valkey",
    "store_settings",
    "valkey",
    "valkey_server",
]

# The same examples on every run, and no limit on the time of one: the machine may be busy with other things.
settings.register_profile("bas", deadline=None, derandomize=True)
settings.load_profile("bas")
