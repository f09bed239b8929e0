"""An export that is not complete yet: `FILE.part`, whole lines only, which becomes FILE at once when it is complete."""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from launcher.failure import misuse
from launcher.verifier.entry import MOST_BYTES
from launcher.verifier.lines import lines

_ENTRY: Final = b'{"entry":'


class Partial:
    """To be entered; one process at a time may have it. Raises Failure (2) where another one does, OSError for a file that
    cannot be written."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._path = output.with_name(f"{output.name}.part")
        self._file = self._path.open("a+b")
        self.size = 0
        """Of the tree that is exported; 0 before it is known."""
        self.entries = 0
        self._checkpoint = b""
        self._last = b""

    def __enter__(self) -> Self:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise misuse(f"another export is writing {self._path}: let it end, or name another --output.") from None
        try:
            self._look()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def cursor(self) -> str:
        """Where to go on; empty at the beginning."""
        return str(json.loads(self._last)["entry"]["cursor"]) if self._last else ""

    @property
    def complete(self) -> bool:
        return bool(self._checkpoint) and self.entries == self.size

    def take(self, line: bytes) -> None:
        """The next line of the stream, without its end: the checkpoint, which every answer begins with, or an entry. A
        checkpoint that is another than before begins everything anew."""
        if line.startswith(_ENTRY):
            self._file.write(line + b"\n")
            self._last = line
            self.entries += 1
            return
        head = _size_and_note(line)
        if not self._checkpoint or head != _size_and_note(self._checkpoint):
            self.clear()
            self._file.write(line + b"\n")
            self._checkpoint, self.size = line, head[0]

    def clear(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self._file.truncate()
        self.size = self.entries = 0
        self._checkpoint = self._last = b""

    def flush(self) -> None:
        """What was taken outlives this process."""
        self._file.flush()

    def finish(self) -> None:
        """The file is there, as a whole, whatever happens to the machine."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._path.replace(self._output)
        folder = os.open(self._output.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _look(self) -> None:
        """Take up what an earlier run left, but for a line that it did not finish."""
        self._file.seek(0)
        whole = 0
        try:
            for line in lines(self._file):
                if not line.endswith(b"\n") or len(line) >= MOST_BYTES:
                    break
                if whole:
                    self.entries += 1
                    self._last = line
                else:
                    self._checkpoint, self.size = line, _size_and_note(line)[0]
                whole += len(line)
            self._file.truncate(whole)
            self._file.seek(whole)
            if self.cursor == "" and self.entries:
                self.clear()
        except (ValueError, KeyError, TypeError):
            self.clear()


def _size_and_note(line: bytes) -> tuple[int, str]:
    said: dict[str, Any] = json.loads(line)["checkpoint"]
    return int(said["treeSize"]), str(said["note"])
