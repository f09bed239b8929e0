"""Baseline: the endpoint a careful team writes by hand: FastAPI, a typed grpc.aio stub, google's json_format.

`python -m bench.baselines.rest PORT DEVICES_ADDRESS`; it reads from the same devices service that our gateway reads from.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import grpc.aio
import uvicorn
from fastapi import FastAPI, Header, HTTPException, Response
from google.protobuf import json_format

from bas.devices.v2 import devices_service_pb2, devices_service_pb2_grpc


def build(address: str) -> FastAPI:
    state: dict[str, Any] = {}

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with grpc.aio.insecure_channel(address) as channel:
            state["stub"] = devices_service_pb2_grpc.DeviceServiceStub(channel)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/api/v2/devices/{device_id}")
    async def get_device(device_id: str, authorization: Annotated[str, Header()]) -> Response:
        try:
            device = await state["stub"].GetDevice(
                devices_service_pb2.GetDeviceRequest(device_id=device_id),
                metadata=(("authorization", authorization),),
                timeout=0.15,
            )
        except grpc.aio.AioRpcError as error:
            raise HTTPException(404 if error.code() is grpc.StatusCode.NOT_FOUND else 503, error.details()) from None
        text = json_format.MessageToJson(device, indent=None, always_print_fields_with_no_presence=True)
        return Response(text, media_type="application/json")

    return app


if __name__ == "__main__":
    uvicorn.run(build(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
