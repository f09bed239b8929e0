"""One process of the audit service on the Firestore that FIRESTORE_EMULATOR_HOST names: prints its port, serves until it is
killed. `python -m tests.integration.audit.process FOLDER`."""

import asyncio
import os
import sys
from pathlib import Path

from chassis.api.validation import compile_validator
from chassis.auth import keys
from chassis.auth.verifier import Verifier
from chassis.clock import SystemClock
from chassis.config import Audit, Auth, Config, Grpc, Seconds
from chassis.interceptors.admission import Gate
from chassis.interceptors.server import ServerChain
from chassis.module import Parts
from chassis.runtime import Services
from chassis.server import GrpcServer
from chassis.store.firestore import FirestoreStore
from chassis.telemetry.metrics import Metrics
from services.audit.module import build
from services.audit.records import SCHEMA
from tests.support import patience
from tests.support.memory_cache import MemoryCache

PROJECT, DATABASE = "bas-test", "(default)"


async def open_store() -> FirestoreStore:
    return await FirestoreStore.open(
        PROJECT,
        DATABASE,
        SCHEMA,
        clock=SystemClock(),
        budget=patience.STORE,
        random_bytes=os.urandom,
        service="audit",
    )


async def main(folder: Path) -> None:
    clock, metrics = SystemClock(), Metrics()
    held = keys.load_or_create(folder / "keys.json", os.urandom)
    settings = Audit(sequence_interval=Seconds(0.02), sequence_batch=40, checkpoint_interval=Seconds(0.4))
    parts = Parts(clock, await open_store(), MemoryCache(clock), metrics, os.urandom, held.secret)
    module = build(Config(audit=settings), parts)
    gate = Gate(Verifier(held, Auth(), clock), clock, patience.DEADLINE, os.urandom)
    server = GrpcServer(
        [module],
        ServerChain(gate, metrics, compile_validator),
        Grpc(drain=Seconds(0)),
        host="127.0.0.1",
        port=0,
        setting="BAS_AUDIT_PORT",
    )
    services = Services("audit", [module], server, clock=clock, random=lambda: 0.5)
    await services.start()
    print(server.port, flush=True)  # noqa: T201 - what it is started for
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
