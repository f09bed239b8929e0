"""Fixtures that every test may ask for."""

from tests.support.platform import fresh_platform
from tests.support.valkey import own_valkey, valkey, valkey_server

__all__ = ["fresh_platform", "own_valkey", "valkey", "valkey_server"]
