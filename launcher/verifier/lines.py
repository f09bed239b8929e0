"""The lines of a file that nobody vouches for: none is held that is longer than a line can be."""

from collections.abc import Iterator
from typing import BinaryIO

from launcher.verifier.entry import MOST_BYTES


def lines(file: BinaryIO) -> Iterator[bytes]:
    """Each line with its end; of one that is too long, as much as shows that it is."""
    while line := file.readline(MOST_BYTES):
        yield line
        if len(line) == MOST_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MOST_BYTES)) and not rest.endswith(b"\n"):
                pass
