"""Moving house: from SQLite to Firestore and back, all of it or one tenant, broken off and gone on, and compared."""

import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from google.cloud.firestore import AsyncClient

from chassis.clock import SystemClock
from chassis.config import ConfigError
from chassis.store.copy import PAGE, CopyRefused, Dumpable, Tally, copy
from chassis.store.factory import CopyEnd, open_copy_end
from chassis.store.port import Create, Delete, Document, DocumentStore, Key, Put, StoreUnavailable, Value
from tests.conformance.store.backend import SCHEMA
from tests.conformance.store.values import ASCENDING
from tests.firestore_server import FirestoreServer, faults
from tests.support import patience
from tests.support.firestore import client_of, serving

SERVICE = "things"
TENANTS = ("acme", "acm", "a/b", "__x__", "$things")
WHAT = {"copy": "this"}


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FirestoreServer]:
    async with serving() as server:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", server.address)
        yield server


async def end(url: str, folder: Path, service: str = SERVICE, *, existing: bool = False) -> CopyEnd:
    budget = replace(patience.STORE, url=url)
    return await open_copy_end(budget, folder, service, SCHEMA, clock=SystemClock(), existing=existing)


@pytest.fixture
async def firestore(server: FirestoreServer) -> AsyncIterator[AsyncClient]:
    async with client_of(server.address) as client:
        yield client


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[CopyEnd]:
    file = await end("", tmp_path)
    yield file
    await file.close()


@pytest.fixture
async def database(server: FirestoreServer, tmp_path: Path) -> AsyncIterator[CopyEnd]:
    database = await end("firestore://test", tmp_path)
    yield database
    await database.close()


def documents(tenant: str) -> list[Create]:
    odd: dict[str, Value] = {f"f{n}": value for n, value in enumerate(ASCENDING)}
    return [
        *(Create(Key(tenant, "things", f"{n:03}"), {"n": n, "zero": -0.0, "one": 1.0}) for n in range(250)),
        Create(Key(tenant, "things", "all values"), odd),
        Create(Key(tenant, "things", "/" * 1500), {"long": True}),
        Create(Key(tenant, "requests", "one"), {"of": tenant}),
        Create(Key(tenant, "a.b/c", "__y__"), {"_commit": {"b": 1, "a": {"": 2}}}),
    ]


async def furnish(store: DocumentStore, tenants: Sequence[str] = TENANTS) -> int:
    for tenant in tenants:
        await store.commit(documents(tenant))
    return len(tenants) * len(documents(""))


async def everything(dump: Dumpable, tenant: str | None = None) -> dict[Key, object]:
    found: dict[Key, object] = {}
    after: Key | None = None
    while page := await dump.page(tenant, after, 100):
        assert len(page) <= 100
        assert not found.keys() & {document.key for document in page}
        found |= {document.key: repr(_sorted(document.fields)) for document in page}
        after = page[-1].key
    return found


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


async def move(
    source: CopyEnd, target: CopyEnd, record: Path, *tenants: str, overwrite: bool = False, store: object = None
) -> Tally:
    return await copy(
        source.dump,
        store or target.store,  # type: ignore[arg-type]  # a wrapper of it
        target.dump,
        tenants,
        record,
        WHAT,
        overwrite=overwrite,
        told=lambda what, count: None,
    )


async def test_there_and_back_again(file: CopyEnd, database: CopyEnd, tmp_path: Path) -> None:
    count = await furnish(file.store)
    record = tmp_path / "record.json"
    there = await move(file, database, record)
    assert there.documents == count
    assert not record.exists()
    wanted = await everything(file.dump)
    assert len(wanted) == count
    assert await everything(database.dump) == wanted

    home = await end("", tmp_path / "back")
    back = await move(database, home, record)
    assert back == there
    assert await everything(home.dump) == wanted
    await home.close()


async def test_one_tenant_moves_alone(file: CopyEnd, database: CopyEnd, tmp_path: Path) -> None:
    await furnish(file.store)
    await database.store.commit([Put(Key("elsewhere", "things", "kept"), {})])
    tally = await move(file, database, tmp_path / "record.json", "acme", "a/b")
    assert tally.documents == 2 * len(documents(""))
    there = await everything(database.dump)
    assert {key.tenant for key in there} == {"acme", "a/b", "elsewhere"}
    assert await everything(database.dump, "acme") == await everything(file.dump, "acme")


async def test_another_services_documents_stay_where_they_are(
    server: FirestoreServer, database: CopyEnd, file: CopyEnd, tmp_path: Path
) -> None:
    others = [await end("firestore://test", tmp_path, name) for name in ("audit", "things2", "zebra")]
    for other in others:
        await furnish(other.store)
    count = await furnish(database.store, ["acme", "later"])
    server.counts.clear()
    tally = await move(database, file, tmp_path / "record.json")
    assert tally.documents == count
    pages = 2 * (len(TENANTS) + 1)  # before and behind the service's collections of each tenant
    assert server.counts.reads <= count + pages * PAGE, "what belongs to others is jumped over"
    assert len(await everything(database.dump, "acme")) == len(documents(""))
    for other in others:
        await other.close()


async def test_what_is_not_ours_in_the_database_is_left_alone(
    firestore: AsyncClient, database: CopyEnd, file: CopyEnd, tmp_path: Path
) -> None:
    for path in ("another/one", "zoo/one", "tenants/acme", "tenants/acme/things/000/below/one"):
        for n in range(2):
            await firestore.document(f"{path}{n or ''}").set({"n": n})
    count = await furnish(database.store, ["acme"])
    tally = await move(database, file, tmp_path / "record.json")
    assert tally.documents == count


class _Breaks:
    """A store that is gone after some commits."""

    def __init__(self, inner: DocumentStore, commits: int) -> None:
        self._inner = inner
        self._left = commits

    async def commit(self, writes: Sequence[Put]) -> object:
        self._left -= 1
        if self._left < 0:
            raise StoreUnavailable
        return await self._inner.commit(writes)


async def test_a_copy_goes_on_where_it_was_broken_off(file: CopyEnd, database: CopyEnd, tmp_path: Path) -> None:
    count = await furnish(file.store)
    record = tmp_path / "record.json"
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await move(file, database, record, store=_Breaks(database.store, 1))
    written: list[Document] = []

    class Counting(_Breaks):
        async def commit(self, writes: Sequence[Put]) -> object:
            written.extend(Document(write.key, "", write.fields) for write in writes)
            return await self._inner.commit(writes)

    tally = await move(file, database, record, store=Counting(database.store, 0))
    assert tally.documents == count
    assert len(written) == count - 3 * 200
    assert await everything(database.dump) == await everything(file.dump)


async def test_a_record_of_another_copy_or_of_nothing_is_refused(
    file: CopyEnd, database: CopyEnd, tmp_path: Path
) -> None:
    await furnish(file.store, ["acme"])
    record = tmp_path / "record.json"
    record.write_text("{}")
    with pytest.raises(CopyRefused, match="no record"):
        await move(file, database, record)
    record.write_text('{"format": 1, "what": {"copy": "that"}, "scope": 0, "after": null, "sums": {}}')
    with pytest.raises(CopyRefused, match="another copy"):
        await move(file, database, record)


async def test_a_target_that_is_in_use_is_not_mixed_up(file: CopyEnd, database: CopyEnd, tmp_path: Path) -> None:
    await furnish(file.store, ["acme"])
    await database.store.commit([Put(Key("acme", "things", "000"), {"old": True})])
    with pytest.raises(CopyRefused, match="--overwrite"):
        await move(file, database, tmp_path / "record.json")
    await move(file, database, tmp_path / "record.json", overwrite=True)
    assert await everything(database.dump) == await everything(file.dump)


async def test_what_does_not_arrive_is_noticed(file: CopyEnd, database: CopyEnd, tmp_path: Path) -> None:
    """The seeded bug: a target that loses a document, changes one, or has one too many."""
    await furnish(file.store, ["acme"])

    class Lossy(_Breaks):
        spoilt: Delete | Put

        async def commit(self, writes: Sequence[Put]) -> object:
            answer = await self._inner.commit(writes)
            await self._inner.commit([self.spoilt])
            return answer

    lossy = Lossy(database.store, 0)
    for spoilt in (
        Delete(Key("acme", "things", "007")),
        Put(Key("acme", "things", "007"), {"n": 7, "zero": 0.0, "one": 1.0}),
        Put(Key("acme", "requests", "too many"), {}),
    ):
        lossy.spoilt = spoilt
        with pytest.raises(CopyRefused, match="does not hold what was copied"):
            await move(file, database, tmp_path / secrets.token_hex(4), overwrite=True, store=lossy)


async def test_a_source_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        await end(f"sqlite:///{tmp_path}/x/", tmp_path, existing=True)


async def test_a_copy_outlives_a_stutter(
    server: FirestoreServer, file: CopyEnd, database: CopyEnd, tmp_path: Path
) -> None:
    count = await furnish(file.store, ["acme"])
    server.faults.add("Commit", faults.answer_lost(), times=1)
    server.faults.add("RunQuery", faults.broken_stream(50), times=2)
    tally = await move(file, database, tmp_path / "record.json")
    assert tally.documents == count
