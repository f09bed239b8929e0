"""The protobuf classes beneath the client library's own types, and the refusal that becomes a gRPC status."""

from typing import Any

import grpc
from google.cloud.firestore_v1 import types

BatchGetDocumentsRequest: Any = types.BatchGetDocumentsRequest.pb()
BatchGetDocumentsResponse: Any = types.BatchGetDocumentsResponse.pb()
CommitRequest: Any = types.CommitRequest.pb()
CommitResponse: Any = types.CommitResponse.pb()
RunQueryRequest: Any = types.RunQueryRequest.pb()
RunQueryResponse: Any = types.RunQueryResponse.pb()
RunAggregationQueryRequest: Any = types.RunAggregationQueryRequest.pb()
RunAggregationQueryResponse: Any = types.RunAggregationQueryResponse.pb()
Document: Any = types.Document.pb()
Value: Any = types.Value.pb()
StructuredQuery: Any = types.StructuredQuery.pb()
FieldFilter: Any = StructuredQuery.FieldFilter
UnaryFilter: Any = StructuredQuery.UnaryFilter
CompositeFilter: Any = StructuredQuery.CompositeFilter


class Refused(Exception):
    """The answer is this gRPC status; nothing was applied."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


def unsupported(what: str) -> Refused:
    """Production can do it; the stand-in does not, as the adapter must not use it."""
    return invalid(f"{what}: not supported by this stand-in")
