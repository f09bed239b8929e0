"""The RPCs of the audit service, as short as a test wants them."""

from typing import Any

import pytest

from bas.audit.v2.audit_pb2 import OUTCOME_SUCCESS, Actor, Entry, Resource
from bas.audit.v2.audit_service_pb2 import (
    ACKNOWLEDGEMENT_DURABLE,
    ACKNOWLEDGEMENT_INTEGRATED,
    ACKNOWLEDGEMENT_SEQUENCED,
    AppendEntryRequest,
    AppendEntryResponse,
    BatchAppendEntriesRequest,
    BatchAppendEntriesResult,
    ExportEntriesRequest,
    ExportEntriesResponse,
    GetCheckpointRequest,
    GetEntryRequest,
    GetInclusionProofRequest,
    ListEntriesRequest,
)
from chassis.errors import ApiError
from tests.integration.audit.conftest import Replica

DURABLE, SEQUENCED, INTEGRATED = ACKNOWLEDGEMENT_DURABLE, ACKNOWLEDGEMENT_SEQUENCED, ACKNOWLEDGEMENT_INTEGRATED


def entry(key: str, **fields: Any) -> Entry:
    usual: dict[str, Any] = {
        "actor": Actor(subject="ann", ip="::1"),
        "action": "device.created",
        "resource": Resource(type="device", id="d1"),
        "outcome": OUTCOME_SUCCESS,
    }
    return Entry(idempotency_key=key, **(usual | fields))


async def append(audit: Replica, key: str, level: Any = DURABLE, **fields: Any) -> AppendEntryResponse:
    return await audit.api.AppendEntry(AppendEntryRequest(entry=entry(key, **fields), acknowledgement=level))


async def append_all(audit: Replica, *keys: str, level: Any = DURABLE) -> list[BatchAppendEntriesResult]:
    request = BatchAppendEntriesRequest(entries=map(entry, keys), acknowledgement=level)
    return list((await audit.api.BatchAppendEntries(request)).results)


async def get(audit: Replica, entry_id: str) -> Entry:
    return await audit.api.GetEntry(GetEntryRequest(entry_id=entry_id))


async def listed(audit: Replica, page_token: str = "", **fields: Any) -> list[str]:
    """Idempotency keys of all pages, but for what the log says of its readers."""
    found: list[str] = []
    token = page_token
    while True:
        page = await audit.api.ListEntries(ListEntriesRequest(page_token=token, **fields))
        found += [each.idempotency_key for each in page.entries if each.action != "audit.read"]
        token = page.next_page_token
        if not token:
            return found


async def exported(audit: Replica, **fields: Any) -> list[ExportEntriesResponse]:
    stream = audit.api.ExportEntries(ExportEntriesRequest(**fields))
    return [ExportEntriesResponse.FromString(each) async for each in stream]


async def checkpoint(audit: Replica, size: int = 0) -> Any:
    return await audit.api.GetCheckpoint(GetCheckpointRequest(tree_size=size))


async def proof(audit: Replica, entry_id: str, size: int = 0) -> Any:
    return await audit.api.GetInclusionProof(GetInclusionProofRequest(entry_id=entry_id, tree_size=size))


def refused(reason: str) -> Any:
    """Expect an ApiError of that reason."""
    return pytest.raises(ApiError, check=lambda failure: failure.reason == reason)
