"""Baseline: a bare grpc.aio server that answers a unary call with fixed bytes. `python -m bench.baselines.echo PORT SIZE`."""

import asyncio
import sys
from typing import Any

import grpc.aio
import uvloop


async def main(port: int, size: int) -> None:
    """Serve until terminated."""
    answer = bytes(size)

    async def echo(_request: bytes, _context: Any) -> bytes:
        return answer

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), int(sys.argv[2])))
