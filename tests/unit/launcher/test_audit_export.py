"""`bas audit export`: a log that arrives in pieces is the file that it would have been in one."""

import fcntl
import json
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest

from bas.audit.v2.audit_pb2 import Checkpoint, Entry
from bas.audit.v2.audit_service_pb2 import ExportedEntry, ExportEntriesRequest, ExportEntriesResponse
from chassis.clock import FakeClock
from chassis.errors import ApiError, Code, invalid_field
from chassis.interceptors.stream import FIRST
from launcher.audit.download import Exporting
from launcher.audit.partial import Partial
from launcher.audit.progress import Progress
from launcher.failure import Failure

SIZE = 10
AWAY = ApiError(Code.UNAVAILABLE, "AWAY", "The service is away.")


class Messages:
    """A stream that gives these and then fails, or ends."""

    def __init__(self, messages: Sequence[bytes], failure: ApiError | None) -> None:
        self._left = list(messages)
        self._failure = failure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *problem: object) -> None:
        self.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._left:
            return self._left.pop(0)
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration

    def cancel(self) -> None:
        self._left, self._failure = [], None


class Service:
    """A log of `SIZE` entries, of which each call gives so many messages as `gives` says, and then what `fails` says;
    after these, all of it."""

    def __init__(self, gives: Sequence[int] = (), fails: ApiError | None = AWAY, note: str = "n") -> None:
        self._gives = list(gives)
        self._fails = fails
        self.note = note
        self.cursors: list[str] = []

    def __call__(self, request: bytes, metadata: object = (), first: float = FIRST) -> Messages:
        cursor = ExportEntriesRequest.FromString(request).cursor
        self.cursors.append(cursor)
        begin = 0
        if cursor:
            note, _, at = cursor.rpartition("-")
            if note != self.note:
                return Messages([], invalid_field("cursor", "is of another log"))
            begin = int(at)
        checkpoint = Checkpoint(origin="o", tree_size=SIZE, root_hash=b"r" * 32, note=self.note)
        messages = [ExportEntriesResponse(checkpoint=checkpoint)]
        for number in range(begin, SIZE):
            entry = ExportedEntry(entry=Entry(sequence=number), cursor=f"{self.note}-{number + 1}")
            messages.append(ExportEntriesResponse(entry=entry))
        raw = [message.SerializeToString() for message in messages]
        return Messages(raw[: self._gives.pop(0)], self._fails) if self._gives else Messages(raw, None)


async def export(service: Service, output: Path, patience: float = 5.0) -> None:
    async def at_once(seconds: float) -> None:
        del seconds

    clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
    with Partial(output) as part:
        await Exporting(service, part, lambda: "token", Progress("exported", clock), at_once, patience).run()


def sequences(output: Path) -> list[int]:
    head, *lines = output.read_text(encoding="utf-8").splitlines()
    assert json.loads(head)["checkpoint"]["rootHash"] == b64encode(b"r" * 32).decode()
    return [int(json.loads(line)["entry"]["entry"]["sequence"]) for line in lines]


async def test_one_that_arrives_at_once(tmp_path: Path) -> None:
    output = tmp_path / "log"
    await export(Service(), output)
    assert sequences(output) == list(range(SIZE))
    assert not output.with_name("log.part").exists()


@pytest.mark.parametrize("gives", [[4], [1, 1, 3, 2], [0], [1], [SIZE]])
@pytest.mark.parametrize("fails", [AWAY, None])
async def test_one_that_is_cut_off_is_what_it_would_have_been(
    gives: list[int], fails: ApiError | None, tmp_path: Path
) -> None:
    whole, output = tmp_path / "whole", tmp_path / "log"
    await export(Service(), whole)
    service = Service(gives, fails)
    await export(service, output)
    assert output.read_bytes() == whole.read_bytes()
    assert len(service.cursors) == len(gives) + 1


async def stopped(output: Path) -> None:
    """An export that gave up after four entries."""
    with pytest.raises(Failure, match="4 entries are kept"):
        await export(Service([5] + [1] * 20), output)


@pytest.mark.parametrize("torn", [b"", b'{"entry":{"entr', b"x\n"])
async def test_a_later_run_goes_on(torn: bytes, tmp_path: Path) -> None:
    output = tmp_path / "log"
    await stopped(output)
    assert not output.exists()
    with (tmp_path / "log.part").open("ab") as part:
        part.write(torn)
    service = Service()
    await export(service, output)
    assert sequences(output) == list(range(SIZE))
    assert service.cursors[0] == ("" if torn.endswith(b"\n") else "n-4")


async def test_what_is_left_of_another_log_is_not_mixed_in(tmp_path: Path) -> None:
    output = tmp_path / "log"
    await stopped(output)
    service = Service(note="another")
    await export(service, output)
    assert service.cursors == ["n-4", ""]
    assert sequences(output) == list(range(SIZE))


async def test_an_export_that_is_there_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    output = tmp_path / "log"
    output.write_text("before", encoding="utf-8")
    await stopped(output)
    assert output.read_text(encoding="utf-8") == "before"
    await export(Service(), output)
    assert sequences(output) == list(range(SIZE))


async def test_a_log_that_is_not_signed_yet_is_waited_for(tmp_path: Path) -> None:
    none = ApiError(Code.NOT_FOUND, "CHECKPOINT_NOT_FOUND", "There is no checkpoint yet.")
    await export(Service([0] * 9, none), tmp_path / "log", patience=20.0)
    with pytest.raises(Failure, match="it is empty"):
        await export(Service([0] * 99, none), tmp_path / "other", patience=3.0)


@pytest.mark.parametrize("code", [Code.PERMISSION_DENIED, Code.UNIMPLEMENTED, Code.DATA_LOSS])
async def test_what_waiting_does_not_cure_ends_it_at_once(code: Code, tmp_path: Path) -> None:
    service = Service([2] * 9, ApiError(code, "NO", "No."))
    with pytest.raises(Failure, match="1 entries are kept"):
        await export(service, tmp_path / "log")
    assert len(service.cursors) == 1


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (tmp_path / "log.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Failure) as refused, Partial(tmp_path / "log"):
            pass
    assert refused.value.exit_code == 2
