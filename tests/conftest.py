"""Fixtures that every test may ask for."""

from tests.support.valkey import own_valkey, valkey, valkey_server

__all__ = ["own_valkey", "valkey", "valkey_server"]
