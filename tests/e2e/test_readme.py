"""The README's tour and the banner's lines, pasted as they are: by bash where curl is installed, and the grpcurl lines by
a client that does what grpcurl does (reflection, then the call), since grpcurl itself may not be there."""

import asyncio
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2

from tests.support import patience
from tests.support.platform import Platform

ROOT = Path(__file__).resolve().parents[2]
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
BOUND = 60.0
LISTENING = 10
"""Seconds for which the tour's streams are listened to here; three are enough on a machine that is not busy."""


def readme_lines() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## A tour")[2]
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


@pytest.fixture
async def up(any_platform: Platform) -> Platform:
    return any_platform


@pytest.fixture
async def channel(up: Platform) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(up.devices) as channel:
        yield channel


class Grpcurl:
    """`grpcurl -plaintext [-H header]… [-d json] address list|Service/Method`, knowing nothing but what reflection says."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._pool = descriptor_pool.DescriptorPool()

    async def run(self, line: str, token: str) -> Any:
        words = iter(shlex.split(line.replace("$TOKEN", token))[1:])
        metadata, body, rest = self._options(words)
        if rest[1] == "list":
            return await self._services()
        service, _, name = rest[1].partition("/")
        await self._load(service)
        method = self._pool.FindServiceByName(service).FindMethodByName(name)
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        call = self._channel.unary_unary(
            f"/{service}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        answer = await call(json_format.ParseDict(json.loads(body), request()), metadata=metadata, timeout=BOUND)
        return json_format.MessageToDict(answer)

    @staticmethod
    def _options(words: Iterator[str]) -> tuple[tuple[tuple[str, str], ...], str, list[str]]:
        metadata, body, rest = [], "{}", []
        for word in words:
            if word == "-H":
                name, _, text = next(words).partition(": ")
                metadata.append((name.lower(), text))
            elif word == "-d":
                body = next(words)
            elif word != "-plaintext":
                rest.append(word)
        return tuple(metadata), body, rest

    async def _ask(self, **question: str) -> Any:
        call = self._channel.stream_stream(
            REFLECTION,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        async for answer in call(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=BOUND):
            return answer
        raise AssertionError("reflection said nothing")

    async def _services(self) -> list[str]:
        answer = await self._ask(list_services="")
        return [service.name for service in answer.list_services_response.service]

    async def _load(self, symbol: str) -> None:
        answer = await self._ask(file_containing_symbol=symbol)
        files = {}
        waiting = list(answer.file_descriptor_response.file_descriptor_proto)
        while waiting:
            file = descriptor_pb2.FileDescriptorProto.FromString(waiting.pop())
            if file.name in files:
                continue
            files[file.name] = file
            for needed in file.dependency:
                if needed not in files:
                    more = await self._ask(file_by_filename=needed)
                    waiting += more.file_descriptor_response.file_descriptor_proto
        self._add(files)

    def _add(self, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
        added: set[str] = set()

        def add(name: str) -> None:
            if name not in added:
                added.add(name)
                for needed in files[name].dependency:
                    add(needed)
                self._pool.Add(files[name])

        for name in files:
            add(name)


async def test_the_grpcurl_lines_of_the_readme(up: Platform, channel: grpc.aio.Channel) -> None:
    lines = [line for line in readme_lines() if line.startswith("grpcurl")]
    assert len(lines) >= 3
    token = up.token()
    answers = [await Grpcurl(channel).run(line, token) for line in lines]
    assert "bas.devices.v2.DeviceService" in answers[0]
    assert [answer.get("deviceId") for answer in answers[1:3]] == ["d2", "d2"]
    assert answers[3] == {"status": "SERVING"}


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="needs bash and curl")
async def test_the_curl_lines_of_the_readme(up: Platform) -> None:
    tour = "\n".join(line for line in readme_lines() if not line.startswith(("grpcurl", "export TOKEN")))
    tour = tour.replace("http://127.0.0.1:8080", up.gateway).replace("-m 3", f"-m {LISTENING}")
    tour = tour.replace(".venv/bin/bas", f"{sys.executable} -m launcher.main")
    answers = await bash(f"export TOKEN={up.token()}\n{tour}", {**up.environ, **up.addresses()})
    assert answers.count("Boiler 7") >= 3
    assert "INVALID_ARGUMENT" in answers
    assert '"total":1' in answers
    assert "Boiler 7b" in answers
    assert "\n204\n" in answers
    accounts, _, events = answers.partition('"revokedCount":1')
    assert '"devices":[]' in accounts
    assert "SESSION_INVALID" in events or "TOKEN_INVALID" in events
    listed, _, streams = events.partition('"caughtUp":true')
    assert listed.count("device.deleted") == 1
    first, _, resumed = streams[1:].partition("retry: ")[2].partition("retry: ")
    assert first.count("event: device.created") == 1
    assert "event: device.deleted" not in first
    assert resumed.count("event: device.deleted") == 1
    assert "event: device.created" not in resumed
    assert re.search(r"\b[1-9]\d* entries", resumed), answers[-2000:]


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="needs bash and curl")
async def test_the_lines_of_the_banner(up: Platform, channel: grpc.aio.Channel) -> None:
    lines = [line.strip() for line in up.out.splitlines()]
    token = up.token()
    answers = await bash("\n".join([f"export TOKEN={token}", *(line for line in lines if line.startswith("curl"))]))
    assert answers.count("Boiler 7") == 2
    listed, read = [await Grpcurl(channel).run(line, token) for line in lines if line.startswith("grpcurl")]
    assert "bas.devices.v2.DeviceService" in listed
    assert read["deviceId"] == "d1"


async def bash(script: str, environ: Mapping[str, str] = os.environ) -> str:
    """What the lines print. Aliases are on, as at a prompt; curl asks for the longest deadline."""
    with tempfile.TemporaryDirectory() as home:
        lines = [f'header = "{name}: {value}"\n' for name, value in patience.HEADERS.items()]
        (Path(home) / ".curlrc").write_text("".join(lines), encoding="utf-8")
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-O", "expand_aliases"),
            cwd=home,
            env={**environ, "CURL_HOME": home},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(shell.communicate(script.encode()), BOUND)
    return out.decode()
