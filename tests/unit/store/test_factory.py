"""BAS_STORE_URL: what it may be, and the store that comes of it, measured."""

from pathlib import Path

import pytest

from chassis.clock import FakeClock
from chassis.config import ConfigError, Store
from chassis.store.factory import FirestoreDatabase, firestore_database, open_store, sqlite_path
from chassis.store.port import Create, DocumentExists, Key, Schema
from chassis.telemetry.metrics import Metrics


def test_a_file_for_each_service_unless_the_url_names_one(tmp_path: Path) -> None:
    assert sqlite_path("", tmp_path, "devices") == tmp_path / "devices.db"
    assert sqlite_path(f"sqlite:///{tmp_path}", tmp_path, "devices") == tmp_path / "devices.db"
    assert sqlite_path("sqlite:////data/one.db", tmp_path, "devices") == Path("/data/one.db")
    assert sqlite_path("sqlite:////data/new/", tmp_path, "devices") == Path("/data/new/devices.db")
    assert sqlite_path("sqlite:///near/a%20b.db", tmp_path, "devices") == Path("near/a b.db")


@pytest.mark.parametrize("url", ["postgres://x/y", "sqlite://", "sqlite:///", "sqlite://host/x", "x", "sqlite:///a?b"])
def test_another_url_is_refused_by_name(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="BAS_STORE_URL"):
        sqlite_path(url, tmp_path, "devices")


def test_a_firestore_url_names_a_project_and_a_database() -> None:
    assert firestore_database("firestore://my-project/orders") == FirestoreDatabase("my-project", "orders")
    assert firestore_database("firestore://my-project") == FirestoreDatabase("my-project", "(default)")
    assert firestore_database("firestore://my-project/(default)") == FirestoreDatabase("my-project", "(default)")
    assert firestore_database("firestore://example.com:my-project/") == FirestoreDatabase(
        "example.com:my-project", "(default)"
    )
    assert firestore_database("sqlite:///x/") is None
    assert firestore_database("") is None


@pytest.mark.parametrize(
    "url",
    ["firestore:", "firestore://", "firestore:///db", "firestore://P/db", "firestore://p1x/a/b", "firestore://p1x/D?q"],
)
def test_a_firestore_url_that_names_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="BAS_STORE_URL"):
        firestore_database(url)


async def test_operations_are_measured_by_outcome(tmp_path: Path) -> None:
    metrics = Metrics()
    store = await open_store(Store(), tmp_path, "devices", Schema(), clock=FakeClock(), metrics=metrics)
    await store.commit([Create(Key("t", "c", "a"), {})])
    with pytest.raises(DocumentExists):
        await store.commit([Create(Key("t", "c", "a"), {})])
    await store.close()
    for outcome in ("ok", "DOCUMENT_EXISTS"):
        labels = {"dependency": "store", "operation": "commit", "outcome": outcome}
        assert metrics.registry.get_sample_value("bas_dependency_operations_total", labels) == 1
