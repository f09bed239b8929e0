"""Batches whose items succeed or fail one by one: cut into commits, answered with what went wrong with each."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from google.rpc.code_pb2 import Code as RpcCode

from bas.problem.v2.problem_pb2 import FieldViolation, Problem
from chassis.errors import ApiError

_T = TypeVar("_T")


def chunks(items: Mapping[int, _T], most: int, most_bytes: int, weigh: Callable[[_T], int]) -> Iterator[dict[int, _T]]:
    """Parts of a batch that fit a commit, in order: of at most `most` items, and `most_bytes` unless the first is larger."""
    chunk: dict[int, _T] = {}
    size = 0
    for at, item in items.items():
        weight = weigh(item)
        if chunk and (len(chunk) == most or size + weight > most_bytes):
            yield chunk
            chunk, size = {}, 0
        chunk[at] = item
        size += weight
    if chunk:
        yield chunk


def problem_of(error: ApiError) -> Problem:
    """What an item of a batch is answered that failed."""
    return Problem(
        code=RpcCode.Name(error.code.grpc_number),
        reason=error.reason,
        message=error.message,
        violations=(FieldViolation(field=each.field, description=each.description) for each in error.violations),
    )
