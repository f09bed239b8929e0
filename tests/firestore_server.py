"""A wire-level stand-in for Firestore: a gRPC server of `google.firestore.v1.Firestore`, documents in memory.

It answers BatchGetDocuments, Commit, RunQuery and RunAggregationQuery as production does, by its documentation: preconditions,
atomic commits, the order of values, cursors, index refusal (`tests/firestore/indexes.py` states the rule), limits; all else
is UNIMPLEMENTED. Faults come on demand. The real client library reaches it by FIRESTORE_EMULATOR_HOST.

    python -m tests.firestore_server --port 0 --project p --database d [--indexes FILE | --any-query]
        [--latency 20ms] [--counts-file FILE]

prints `host:port` in one line, and stops on SIGTERM or SIGINT; then the counts are written to the file. While it runs,
`tests.firestore.control.Control` reads counts and sets faults from another process.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.firestore import faults
from tests.firestore.control import Control, ControlHandler
from tests.firestore.counts import Attempt, Counts
from tests.firestore.faults import Fault, Faults
from tests.firestore.limits import Limits
from tests.firestore.server import FirestoreServer

__all__ = ["Attempt", "Control", "Counts", "Fault", "Faults", "FirestoreServer", "Limits", "faults", "main"]


def _seconds(text: str) -> float:
    """`20ms` or `0.02s`, as seconds."""
    for unit, scale in (("ms", 0.001), ("s", 1.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * scale
    raise argparse.ArgumentTypeError(f"{text!r} has no unit: ms or s")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.firestore_server", description="A stand-in for Firestore.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--project", default="test")
    parser.add_argument("--database", default="(default)")
    parser.add_argument("--indexes", type=Path, help="a firestore.indexes.json")
    parser.add_argument("--any-query", action="store_true", help="serve every query, index or not")
    parser.add_argument("--latency", type=_seconds, default=0.0, help="added to each call, such as 20ms")
    parser.add_argument("--counts-file", type=Path, help="where the counts are written at the end, as JSON")
    return parser.parse_args(argv)


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = FirestoreServer(
        arguments.project,
        arguments.database,
        indexes=arguments.indexes,
        any_query=arguments.any_query,
        latency=arguments.latency,
    )
    sys.stdout.write(await server.start(arguments.port, ControlHandler(server)) + "\n")
    sys.stdout.flush()
    await stop.wait()
    await server.stop()
    if arguments.counts_file is not None:
        arguments.counts_file.write_text(json.dumps(server.counts.to_json()))


def main(argv: Sequence[str] | None = None) -> None:
    asyncio.run(_serve(_arguments(argv)))


if __name__ == "__main__":
    main()
