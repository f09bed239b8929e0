"""The audit log: durable appends through gRPC in batches beside one commit an entry, proofs in a log of a million, and an
export verified offline.

The million is its tiles, its newest batch and checkpoint, and the entries that are asked about: what a proof reads. Its
leaves are numbers, hashed, for a leaf is 32 bytes whatever it says.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from os import urandom
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc.aio

from bas.audit.v2.audit_pb2 import OUTCOME_SUCCESS, Actor, Checkpoint, Entry, Resource
from bas.audit.v2.audit_service_pb2 import (
    AppendEntryRequest,
    BatchAppendEntriesRequest,
    ExportedEntry,
    ExportEntriesResponse,
    GetInclusionProofRequest,
)
from bas.audit.v2.audit_service_pb2_grpc import AuditServiceStub
from bench.load import closed
from bench.processes import Server, free_port, listening, start
from bench.report import Report
from chassis.auth import keys, tokens
from chassis.auth.tokens import Grant
from chassis.clock import SystemClock
from chassis.config import Auth, Seconds, Store
from chassis.store.port import Create, Write
from chassis.store.sqlite import SqliteStore
from gateway.module import load_schema
from gateway.transcoding.codec import load_codec
from launcher.valkey import EmbeddedValkey
from launcher.verifier.check import check
from launcher.verifier.note import parse_key
from services.audit.checkpoints import Signed, created
from services.audit.edge import WIDTH, Edge, place, root_in
from services.audit.entry import recorded
from services.audit.leaf import leaf_of, personal_hash
from services.audit.merkle import Node, fold, nodes
from services.audit.note import Signer, origin_of
from services.audit.records import SCHEMA, Batch, Pending, arrived, batched, entry_fields, entry_key, sequenced, tiled

TENANT: Final = "bench"
LARGE: Final = "large"
_BATCH: Final = 250
_CALLERS: Final = 4
_ASKED: Final = 400
_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running service."""

    stub: Any
    server: Server
    keys: keys.KeySet

    def metadata(self, tenant: str) -> tuple[tuple[str, str], ...]:
        token = tokens.mint(self.keys, Auth(), Grant(tenant, "bench", ("audit:admin",)), SystemClock().now())
        return (("authorization", f"Bearer {token}"),)


async def audit(report: Report, folder: Path, *, quick: bool) -> None:
    folder = folder / "audit"
    held = keys.load_or_create(folder / "keys.json", urandom)
    size = 100_000 if quick else 1_000_000
    begun = time.perf_counter()
    asked = await _large(folder, held, size)
    report.tells(f"audit, a log of {size:,} made for it", time.perf_counter() - begun, "s")
    async with _served(folder, held) as served:
        await _appends(report, served, seconds=1.0 if quick else 4.0)
        await _proofs(report, served, asked, size, seconds=1.0 if quick else 4.0)
    _verification(report, held, 20_000 if quick else 200_000)


async def _appends(report: Report, served: Served, seconds: float) -> None:
    metadata, numbers, appended = served.metadata(TENANT), count(), 0

    async def one(_caller: int) -> None:
        await served.stub.AppendEntry(
            AppendEntryRequest(entry=_entry(next(numbers))), metadata=metadata, timeout=_TIMEOUT
        )

    async def batch(_caller: int) -> None:
        entries = [_entry(next(numbers)) for _ in range(_BATCH)]
        answer = await served.stub.BatchAppendEntries(
            BatchAppendEntriesRequest(entries=entries), metadata=metadata, timeout=_TIMEOUT
        )
        assert all(each.HasField("appended") for each in answer.results)
        nonlocal appended
        appended += _BATCH

    alone = await closed(one, callers=1, seconds=seconds)
    report.load("audit append, 1 caller, one commit an entry", alone, {})
    report.load("audit append, 64 callers, commits grouped", await closed(one, callers=64, seconds=seconds), {})
    before = served.server.cpu()
    batches = await closed(batch, callers=_CALLERS, seconds=seconds)
    spent = (served.server.cpu() - before) / max(1, appended)
    rate = batches.rate * _BATCH
    note = (
        f"batches of {_BATCH}, {_CALLERS} callers, p99 {batches.percentile(0.99) * 1e3:.0f} ms, {batches.errors} errors"
    )
    note += f"; server CPU {spent * 1e6:.0f} us an entry, sequencing included"
    report.at_least("audit append, durable, in batches", rate, 2000, "/s", note)
    report.at_least("audit append, in batches / one commit an entry", rate / alone.rate, 10)


async def _proofs(report: Report, served: Served, asked: list[str], size: int, seconds: float) -> None:
    metadata, random = served.metadata(LARGE), Random(1)  # noqa: S311 - which entry is asked about

    async def proof(_caller: int) -> None:
        request = GetInclusionProofRequest(entry_id=random.choice(asked))
        answer = await served.stub.GetInclusionProof(request, metadata=metadata, timeout=_TIMEOUT)
        assert answer.tree_size == size

    found = await closed(proof, callers=1, seconds=seconds)
    report.load(f"audit proof, {size:,} entries, 1 caller", found, {})
    report.below(f"audit proof, {size:,} entries, p99", found.percentile(0.99) * 1e3, 10.0)


def _verification(report: Report, held: keys.KeySet, size: int) -> None:
    lines = _export(held, size)
    key = parse_key(Signer(held.secret("audit checkpoint key")).verifier_key(origin_of(Auth().issuer, TENANT)))
    begun = time.process_time()
    result = check(lines, key)
    spent = time.process_time() - begun
    assert result.good, list(result.lines("export"))
    report.at_least("audit verify, entries a second of CPU", size / spent, 100_000, "/s", f"{size:,} entries, offline")


def _export(held: keys.KeySet, size: int) -> list[bytes]:
    """Lines as the gateway writes them."""
    codec, now = load_codec(load_schema().files)["bas.audit.v2.ExportEntriesResponse"], SystemClock().now()
    lines, leaves = [], []
    for number in range(size):
        entry = recorded(TENANT, _entry(number), now)
        salt = urandom(32)
        personal = personal_hash(salt, entry.actor)
        leaves.append(leaf_of(entry, personal))
        entry.sequence = number
        exported = ExportedEntry(
            entry=entry, personal_salt=salt, personal_hash=personal, leaf_hash=leaves[-1], cursor=f"{size}.{number}.abc"
        )
        lines.append(codec.from_binary(ExportEntriesResponse(entry=exported).SerializeToString()).json())
    edge, root = _grown(leaves)
    checkpoint = Checkpoint(
        origin=origin_of(Auth().issuer, TENANT),
        tree_size=edge.size,
        root_hash=root,
        note=Signer(held.secret("audit checkpoint key")).note(origin_of(Auth().issuer, TENANT), edge.size, root),
    )
    checkpoint.sign_time.FromDatetime(now)
    first = codec.from_binary(ExportEntriesResponse(checkpoint=checkpoint).SerializeToString()).json()
    return [each + b"\n" for each in (first, *lines)]


def _grown(leaves: list[bytes]) -> tuple[Edge, bytes]:
    edge, tiles = Edge().extended(leaves)
    hashes = {(tile.level, tile.index): tile.hashes for tile in tiles}
    return edge, _root(edge, hashes, edge.size)


def _root(edge: Edge, tiles: dict[tuple[int, int], bytes], size: int) -> bytes:
    return fold([_hash(edge, tiles, node) for node in nodes((0, size))])


def _hash(edge: Edge, tiles: dict[tuple[int, int], bytes], node: Node) -> bytes:
    level, first, number = place(node)
    held = edge.hashes(level, first, number)
    if held is None:
        begin = first % WIDTH * 32
        held = tiles[level, first // WIDTH][begin : begin + number * 32]
    return root_in(held)


async def _large(folder: Path, held: keys.KeySet, size: int) -> list[str]:
    """The documents that proofs read in a log of that size; ids of entries in it."""
    clock = SystemClock()
    store = await SqliteStore.open(folder / "audit.db", SCHEMA, clock=clock, budget=Store(write_timeout=Seconds(30)))
    random, now = Random(7), clock.now()  # noqa: S311 - as above
    places = sorted(random.sample(range(size), _ASKED))
    made = {at: recorded(LARGE, _entry(at), now) for at in places}
    hashed = {at: personal_hash(bytes(32), entry.actor) for at, entry in made.items()}
    leaves = [sha256(number.to_bytes(8, "big")).digest() for number in range(size)]
    for at, entry in made.items():
        leaves[at] = leaf_of(entry, hashed[at])
    edge, tiles = Edge().extended(leaves)
    for first in range(0, len(tiles), 50):
        await store.commit([tiled(LARGE, tile) for tile in tiles[first : first + 50]])
    root = _root(edge, {(tile.level, tile.index): tile.hashes for tile in tiles}, size)
    begin = (size - 1) // WIDTH * WIDTH
    tail = Batch(begin, tuple(f"e{number}" for number in range(begin, size)), b"".join(leaves[begin:]))
    origin = origin_of(Auth().issuer, LARGE)
    note = Signer(held.secret("audit checkpoint key")).note(origin, size, root)
    await store.commit([batched(LARGE, tail, now), created(LARGE, Signed(size, root, note, now))])
    for at, entry in made.items():
        arrival = f"a{at}"
        fields = entry_fields(entry, bytes(32), hashed[at], leaves[at], arrival, 0)
        writes: list[Write] = [
            Create(entry_key(LARGE, entry.entry_id), fields),
            arrived(arrival, LARGE, now, [entry.entry_id], leaves[at]),
        ]
        committed = await store.commit(writes)
        pending = Pending(arrival, committed.versions[1], LARGE, "", (entry.entry_id,), leaves[at])
        await store.commit([sequenced(pending, at)])
    await store.close()
    return [entry.entry_id for entry in made.values()]


def _entry(number: int) -> Entry:
    return Entry(
        idempotency_key=f"key-{number}",
        actor=Actor(subject=f"user-{number % 1000}", session_id="0123456789abcdef", ip="192.0.2.7"),
        action="device.updated",
        resource=Resource(type="device", id=f"device-{number % 5000}"),
        outcome=OUTCOME_SUCCESS,
        request_id=f"request-{number}",
    )


@asynccontextmanager
async def _served(folder: Path, held: keys.KeySet) -> AsyncIterator[Served]:
    valkey = EmbeddedValkey(folder / "valkey")
    await valkey.start()
    port = free_port()
    env = {
        "BAS_DATA_DIR": str(folder),
        "BAS_REDIS_URL": valkey.url,
        "BAS_AUDIT_PORT": str(port),
        "BAS_AUDIT_METRICS_PORT": str(free_port()),
        "BAS_LIMITS_RATE": "1000000",
        "BAS_LIMITS_BURST": "1000000",
        "BAS_SHED_ENABLED": "false",
        "BAS_LOG_LEVEL": "warning",
    }
    server = start("audit", "launcher.main", "serve", "audit", env=env, log=folder / "audit.log")
    try:
        await listening(port, server)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Served(AuditServiceStub(channel), server, held)
    finally:
        server.stop()
        await valkey.stop()
