"""The stores that the same tests run on, as settings of a platform: a file, and Firestore.

Firestore is the stand-in as a process of its own, with the indexes that are deployed and no others; or what
FIRESTORE_EMULATOR_HOST names; or, with Google's credentials, the database of FIRESTORE_TEST_DATABASE (`project/database`).
See `make test-firestore`.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parents[2]
EMULATOR: Final = "FIRESTORE_EMULATOR_HOST"
STORES: Final = ("sqlite", "firestore")
SQLITE: Final[Mapping[str, str]] = MappingProxyType({})
_PLACE: Final = "bas-test/(default)"
_START_BOUND: Final = 60.0


def is_stand_in() -> bool:
    """Whether the tests bring their own server, so that faults can be had from it."""
    return not (os.environ.get(EMULATOR) or os.environ.get("FIRESTORE_TEST_DATABASE"))


@contextmanager
def stand_in(*options: str, place: str = _PLACE) -> Iterator[str]:
    """The address of `tests.firestore_server` in a process of its own, with the deployed indexes."""
    project, _, database = place.partition("/")
    command = [sys.executable, "-m", "tests.firestore_server", "--project", project, "--database", database]
    with subprocess.Popen(
        [*command, "--indexes", str(ROOT / "firestore.indexes.json"), *options],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], _START_BOUND)
            address = process.stdout.readline().decode().strip() if ready else ""
            assert address, "the stand-in for Firestore did not start"
            yield address
        finally:
            process.kill()


@pytest.fixture(scope="session")
def firestore_settings() -> Iterator[Mapping[str, str]]:
    """Settings that lead to one Firestore for all tests of this process: each works as tenants of its own."""
    place = os.environ.get("FIRESTORE_TEST_DATABASE", _PLACE)
    settings = {"BAS_STORE_URL": f"firestore://{place}"}
    if not is_stand_in():
        yield settings
        return
    with stand_in() as address:
        yield settings | {EMULATOR: address}


@pytest.fixture(params=STORES)
def store_settings(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """A test that asks for this, or for what stands on it, runs once on each store."""
    if request.param == "sqlite":
        return SQLITE
    settings: Mapping[str, str] = request.getfixturevalue("firestore_settings")
    return settings
