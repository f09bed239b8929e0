"""Opening a Firestore store: what is wrong, and what to run, in one message."""

import secrets

import grpc
import pytest

from chassis.clock import SystemClock
from chassis.config import ConfigError
from chassis.store import firestore
from chassis.store.firestore import FirestoreStore
from chassis.store.port import Schema, StoreTimeout, StoreUnavailable
from tests.firestore_server import FirestoreServer, faults
from tests.support import patience
from tests.support.firestore import firestore_server

__all__ = ["firestore_server"]


async def opening(project: str = "test", database: str = "(default)") -> FirestoreStore:
    return await FirestoreStore.open(
        project, database, Schema(), clock=SystemClock(), budget=patience.STORE, random_bytes=secrets.token_bytes
    )


async def test_a_database_that_is_not_there_is_to_be_made(firestore_server: FirestoreServer) -> None:
    with pytest.raises(ConfigError, match="gcloud firestore databases create --project=test --database='missing'"):
        await opening(database="missing")


async def test_another_project_or_no_permission(firestore_server: FirestoreServer) -> None:
    with pytest.raises(ConfigError, match=r"gcloud services enable .* --project=other"):
        await opening("other")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "gcloud auth application-default login"),
        (grpc.StatusCode.PERMISSION_DENIED, "roles/datastore.user"),
        (grpc.StatusCode.FAILED_PRECONDITION, "native mode"),
    ],
)
async def test_what_waiting_does_not_mend_says_what_to_run(
    firestore_server: FirestoreServer, code: grpc.StatusCode, text: str
) -> None:
    firestore_server.faults.add("*", faults.status(code), times=None)
    with pytest.raises(ConfigError, match=text):
        await opening()
    assert len(firestore_server.counts.attempts) == 1


async def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/absent.json")
    with pytest.raises(ConfigError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        await opening()


async def test_a_database_that_stutters_at_first_is_waited_for(firestore_server: FirestoreServer) -> None:
    firestore_server.faults.add("BatchGetDocuments", faults.unavailable(), times=5)
    store = await opening()
    await store.close()


async def test_a_database_that_is_away_is_unavailable(
    firestore_server: FirestoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firestore, "OPENING", 0.5)
    await firestore_server.stop()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await opening()


async def test_a_database_that_hangs_is_given_up(
    firestore_server: FirestoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firestore, "OPENING", 0.2)
    firestore_server.faults.add("BatchGetDocuments", faults.hang(), times=None)
    with pytest.raises(StoreTimeout, match=r"firestore://test/\(default\) did not answer within 0.2 s"):
        await opening()
