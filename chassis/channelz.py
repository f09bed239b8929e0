"""Channelz (grpc.channelz.v1): what gRPC knows of its own servers, channels and sockets."""

from collections.abc import Callable
from typing import Any

import grpc
from grpc_channelz.v1 import channelz_pb2_grpc
from grpc_channelz.v1.channelz import ChannelzServicer

from chassis.errors import BY_GRPC_NUMBER, ApiError


class _Outcome:
    """The two methods of a gRPC context that the library's servicer says its failures with."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.OK

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        """Not kept: the text is for the library's developers."""


class Channelz:
    """The library's servicer, with its failures as ApiErrors."""

    def __getattr__(self, name: str) -> Any:
        if not hasattr(channelz_pb2_grpc.ChannelzServicer, name):
            raise AttributeError(name)
        return _answering(getattr(ChannelzServicer, name))


def _answering(answer: Callable[..., Any]) -> Callable[[Any], Any]:
    async def call(request: Any) -> Any:
        outcome = _Outcome()
        response = answer(request, outcome)
        if outcome.code is not grpc.StatusCode.OK:
            code = BY_GRPC_NUMBER[outcome.code.value[0]]
            raise ApiError(code, f"CHANNELZ_{code.name}", f"Channelz: {code.title.lower()}.")
        return response

    return call
