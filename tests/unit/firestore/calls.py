"""Requests that the client library's high-level calls do not make: whole replacements, preconditions, bare queries."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from google.cloud.firestore import AsyncClient
from google.cloud.firestore_v1 import _helpers
from google.cloud.firestore_v1.types import (
    CommitRequest,
    Document,
    Precondition,
    RunQueryRequest,
    StructuredQuery,
    Value,
    Write,
)

Fields = Mapping[str, Any]
DEVICES = "tenants/t/devices"


def value(of: Any) -> Value:
    return _helpers.encode_value(of)


def name(client: AsyncClient, path: str) -> str:
    return f"{client._database_string}/documents/{path}"


def update(client: AsyncClient, path: str, fields: Fields, **precondition: Any) -> Write:
    """`exists=…` or `update_time=…`; neither: whether or not it exists."""
    document = Document(name=name(client, path), fields={key: value(of) for key, of in fields.items()})
    return Write(update=document, current_document=Precondition(**precondition) if precondition else None)


def delete(client: AsyncClient, path: str, **precondition: Any) -> Write:
    return Write(delete=name(client, path), current_document=Precondition(**precondition) if precondition else None)


async def commit(client: AsyncClient, *writes: Write, database: str | None = None) -> Any:
    """A `CommitResponse`, whose times are datetimes."""
    request = CommitRequest(database=database or client._database_string, writes=list(writes))
    return await client._firestore_api.commit(request=request, retry=None, timeout=60)


async def put(client: AsyncClient, documents: Mapping[str, Fields], collection: str = DEVICES) -> Any:
    return await commit(client, *(update(client, f"{collection}/{key}", fields) for key, fields in documents.items()))


async def fields(client: AsyncClient, path: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (await client.document(path).get(retry=None, timeout=60)).to_dict()
    return found


async def update_time(client: AsyncClient, path: str) -> datetime:
    moment: datetime = (await client.document(path).get(retry=None, timeout=60)).update_time
    return moment


async def ids(query: Any) -> list[str]:
    return [found.id async for found in query.stream(retry=None, timeout=60)]


async def run(client: AsyncClient, query: StructuredQuery, parent: str = "tenants/t") -> list[str]:
    """The ids that a bare query finds."""
    request = RunQueryRequest(parent=name(client, parent), structured_query=query)
    stream = await client._firestore_api.run_query(request=request, retry=None, timeout=60)
    return [answer.document.name.rsplit("/", 1)[1] async for answer in stream if answer.document.name]
