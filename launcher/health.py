"""Health of a gRPC service, asked as anybody would ask it (grpc.health.v1)."""

import grpc
from grpc_health.v1 import health_pb2

from chassis.channel import open_channel
from chassis.config import Grpc


async def health(address: str, config: Grpc, *, credential: tuple[tuple[str, str], ...], within: float) -> str:
    """`SERVING`, `NOT_SERVING`, or why there was no answer within `within` seconds. `credential` is call metadata and
    may be empty: health needs none on loopback."""
    channel = open_channel(address, config)
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    try:
        answer = await check(health_pb2.HealthCheckRequest(), timeout=within, metadata=credential)
    except grpc.aio.AioRpcError as problem:
        silent = problem.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        return "no answer" if silent else f"{problem.code().name}: {problem.details()}"
    finally:
        await channel.close()
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
