"""The history of `test_history.py` for as long as one likes: python -m tests.integration.sessions.long_run 1000000"""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.integration.sessions.chaos import Faults, Run
from tests.integration.sessions.conftest import opened
from tests.integration.sessions.test_history import pair
from tests.support.valkey import Valkey

LONGEST = 3600.0


async def long_run(operations: int) -> int:
    """Exit code: 0 when no promise was broken."""
    with tempfile.TemporaryDirectory(prefix="bas-") as folder:
        server = Valkey(Path(folder))
        await server.start()
        try:
            async with opened(Path(folder) / "sessions.db") as store, pair(store, server) as (way, replicas):
                faults = Faults(server, way)
                history = await Run(replicas, LONGEST, operations).run(faults)
        finally:
            await server.stop()
    broken = history.violations()
    revoked = sum(revoke.acknowledged is not None for revoke in history.revokes)
    sys.stdout.write(
        f"{history.operations} operations, {revoked} revocations acknowledged, {faults.count} faults:"
        f" {len(broken)} broken promises\n"
    )
    for line in broken[:20]:
        sys.stdout.write(f"  {line}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(long_run(int(sys.argv[1]))))
