"""Server reflection, v1 and v1alpha, over one logic: the two protocols differ in their package name only.

`grpcio-reflection` brings v1alpha; the v1 file is that one with its package renamed.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Final

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2 as pb

from chassis.errors import Code

_ALPHA: Final = "grpc.reflection.v1alpha"
V1_PACKAGE: Final = "grpc.reflection.v1"
V1_SERVICE: Final = f"{V1_PACKAGE}.ServerReflection"
ALPHA_SERVICE: Final = f"{_ALPHA}.ServerReflection"


class Reflection:
    """The servicer of both versions: what is asked, answered from a descriptor pool."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = sorted(services)
        self._pool = descriptor_pool.Default()
        self._v1 = _v1_pool()
        self._answers: Mapping[str, Callable[[pb.ServerReflectionRequest], pb.ServerReflectionResponse]] = {
            "file_by_filename": lambda asked: _files(self._find_file(asked.file_by_filename)),
            "file_containing_symbol": lambda asked: _files(self._find_symbol(asked.file_containing_symbol)),
            "file_containing_extension": lambda asked: _files(self._find_extension(asked.file_containing_extension)),
            "all_extension_numbers_of_type": self._extension_numbers,
            "list_services": self._list,
        }

    async def ServerReflectionInfo(  # noqa: N802
        self, requests: AsyncIterator[pb.ServerReflectionRequest]
    ) -> AsyncIterator[pb.ServerReflectionResponse]:
        async for request in requests:
            yield self.answer(request)

    def answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        """The answer to one question; what is not found, and what is no question, are answers too."""
        asked = request.WhichOneof("message_request")
        if asked is None:
            response = _problem(Code.INVALID_ARGUMENT, "The request asks nothing.")
        else:
            try:
                response = self._answers[asked](request)
            except KeyError:
                response = _problem(Code.NOT_FOUND, "There is nothing of that name here.")
        response.valid_host = request.host
        response.original_request.CopyFrom(request)
        return response

    def _find_file(self, name: str) -> FileDescriptor:
        return self._v1.FindFileByName(name) if name.startswith(_path(V1_PACKAGE)) else self._pool.FindFileByName(name)

    def _find_symbol(self, name: str) -> FileDescriptor:
        pool = self._v1 if name.startswith(f"{V1_PACKAGE}.") else self._pool
        try:
            return pool.FindFileContainingSymbol(name)
        except KeyError:  # the pool does not count methods as symbols; the protocol does
            return pool.FindMethodByName(name).containing_service.file

    def _find_extension(self, asked: pb.ExtensionRequest) -> FileDescriptor:
        extended = self._pool.FindMessageTypeByName(asked.containing_type)
        extension = self._pool.FindExtensionByNumber(extended, asked.extension_number)
        return self._pool.FindFileContainingSymbol(extension.full_name)

    def _extension_numbers(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        extended = self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
        numbers = sorted(extension.number for extension in self._pool.FindAllExtensions(extended))
        return pb.ServerReflectionResponse(
            all_extension_numbers_response=pb.ExtensionNumberResponse(
                base_type_name=extended.full_name, extension_number=numbers
            )
        )

    def _list(self, _request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        services = [pb.ServiceResponse(name=name) for name in self._services]
        return pb.ServerReflectionResponse(list_services_response=pb.ListServiceResponse(service=services))


def _files(file: FileDescriptor) -> pb.ServerReflectionResponse:
    """The file and everything that it imports, itself first."""
    found: dict[str, bytes] = {}
    waiting = [file]
    while waiting:
        each = waiting.pop()
        if each.name not in found:
            found[each.name] = each.serialized_pb
            waiting.extend(each.dependencies)
    return pb.ServerReflectionResponse(
        file_descriptor_response=pb.FileDescriptorResponse(file_descriptor_proto=list(found.values()))
    )


def _problem(code: Code, message: str) -> pb.ServerReflectionResponse:
    return pb.ServerReflectionResponse(
        error_response=pb.ErrorResponse(error_code=code.grpc_number, error_message=message)
    )


def _v1_pool() -> DescriptorPool:
    renamed = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(renamed)
    renamed.name, renamed.package = f"{_path(V1_PACKAGE)}/reflection.proto", V1_PACKAGE
    for message in renamed.message_type:
        for field in message.field:
            if field.type_name:  # setting it, even to nothing, would make a scalar a message
                field.type_name = field.type_name.replace(f".{_ALPHA}.", f".{V1_PACKAGE}.")
    for service in renamed.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{_ALPHA}.", f".{V1_PACKAGE}.")
            method.output_type = method.output_type.replace(f".{_ALPHA}.", f".{V1_PACKAGE}.")
    pool = DescriptorPool()
    pool.AddSerializedFile(renamed.SerializeToString())
    return pool


def _path(package: str) -> str:
    return package.replace(".", "/")
