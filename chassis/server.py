"""The only maker of gRPC servers: services registered from their descriptors, each RPC behind the whole chain."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from chassis import policies
from chassis.channelz import Channelz
from chassis.config import Grpc
from chassis.health import Health
from chassis.interceptors.server import Method, ServerChain
from chassis.listen import PortTaken, check_port, is_loopback
from chassis.module import ServiceModule
from chassis.policies import Credential, Policy
from chassis.reflection import ALPHA_SERVICE, V1_SERVICE, Reflection

_METADATA_BYTES: Final = 16 * 1024
"""Room for a token that is too long to be told so by us rather than by gRPC."""


class GrpcServer:
    """One listening gRPC server with `modules`, health, reflection and channelz.

    The port is bound when the server is made, so that a bad one is found before anything runs; nothing is accepted
    until `start`.
    """

    def __init__(
        self, modules: Iterable[ServiceModule], chain: ServerChain, config: Grpc, *, host: str, port: int, setting: str
    ) -> None:
        check_port(host, port, setting)
        modules = tuple(modules)
        names = [module.descriptor.full_name for module in modules]
        self._drain = float(config.drain)
        self._started = False
        self.health = Health(names)
        self._server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", 0),
                ("grpc.max_send_message_length", config.max_message),
                ("grpc.max_receive_message_length", config.max_message),
                ("grpc.max_metadata_size", _METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", 2 * _METADATA_BYTES),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 5000),
                ("grpc.enable_channelz", 1),
            ),
            maximum_concurrent_rpcs=config.max_concurrent,
        )
        for module in modules:
            self._register(module.descriptor, module.servicer, chain, policies.of_service(module.descriptor))
        self._register_infrastructure(chain, names, is_open=_is_open(config, host))
        try:
            self.port: int = self._server.add_insecure_port(_authority(host, port))
        except RuntimeError:  # taken between the look and the leap
            raise PortTaken(f"Port {port} on {host} is taken: set {setting} to a free one.") from None

    async def start(self) -> None:
        """Accept calls. Health says NOT_SERVING until told otherwise."""
        await self._server.start()
        self._started = True

    async def stop(self) -> None:
        """Say NOT_SERVING, refuse new calls, give those in progress `BAS_GRPC_DRAIN`, cancel the rest."""
        self.health.stop()
        if not self._started:  # gRPC gives the port back only after a start
            await self.start()
            await self._server.stop(None)
            return
        await self._server.stop(self._drain)

    def _register_infrastructure(self, chain: ServerChain, names: Iterable[str], *, is_open: bool) -> None:
        policy = Policy(scope="", credential=Credential.NONE if is_open else Credential.TOKEN)
        alpha = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        channelz = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"]
        health = health_pb2.DESCRIPTOR.services_by_name["Health"]
        reflection = Reflection((*names, health.full_name, channelz.full_name, ALPHA_SERVICE, V1_SERVICE))
        for descriptor, servicer, name in (
            (health, self.health, ""),
            (alpha, reflection, ALPHA_SERVICE),
            (alpha, reflection, V1_SERVICE),
            (channelz, Channelz(), ""),
        ):
            same = {policies.path(method): policy for method in descriptor.methods}
            self._register(descriptor, servicer, chain, same, served_as=name)

    def _register(
        self,
        descriptor: ServiceDescriptor,
        servicer: object,
        chain: ServerChain,
        policy: Mapping[str, Policy],
        *,
        served_as: str = "",
    ) -> None:
        name = served_as or descriptor.full_name
        missing = [method.name for method in descriptor.methods if not hasattr(servicer, method.name)]
        if missing:
            raise TypeError(f"{type(servicer).__name__} lacks {', '.join(missing)} of {name}")
        handlers = {}
        for method in descriptor.methods:
            handler: Callable[[Any], Any] = getattr(servicer, method.name)
            request: type[Message] = GetMessageClass(method.input_type)
            handlers[method.name] = chain.handler(
                Method(
                    path=f"/{name}/{method.name}",
                    policy=policy[policies.path(method)],
                    request=request,
                    handler=handler,
                    client_streaming=method.client_streaming,
                    server_streaming=method.server_streaming,
                )
            )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


def _is_open(config: Grpc, host: str) -> bool:
    return config.reflection == "on" or (config.reflection == "auto" and is_loopback(host))


def _authority(host: str, port: int) -> str:
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
