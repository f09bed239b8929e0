"""Registering devices, one or many, and changing what was registered."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.code_pb2 import Code as RpcCode

from bas.devices.v2.devices_pb2 import Device
from bas.devices.v2.devices_service_pb2 import BatchCreateDevicesResponse, BatchCreateDevicesResult
from bas.problem.v2.problem_pb2 import FieldViolation, Problem
from chassis.api.ids import new_id
from chassis.api.validation import compile_validator
from chassis.clock import Clock
from chassis.errors import ApiError, Code, Violation, already_exists, invalid_argument
from services.devices import device as rules
from services.devices.records import Stored
from services.devices.store import DeviceExists, DeviceStore

TOGETHER: Final = 100
"""Devices of a batch committed at once."""

TOGETHER_BYTES: Final = 1024 * 1024
"""And their size: a commit has a limit, and a stored label takes about three times its size."""


_TROUBLE: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED})
"""What makes a batch fail as a whole when it met nothing else: then it can be tried again."""


class Registry:
    def __init__(self, store: DeviceStore, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes
        self._validate = compile_validator(Device.DESCRIPTOR)

    async def create(self, tenant: str, given: Device, request_id: str) -> Device:
        """Raises DEVICE_ALREADY_EXISTS."""
        return await self._store.create(tenant, self._registered(given))

    async def create_batch(self, tenant: str, given: Sequence[Device], request_id: str) -> BatchCreateDevicesResponse:
        """One result for each, in order. Raises what the store raises when it takes none of them."""
        outcomes: dict[int, Device | ApiError] = {}
        for position in rules.duplicates([device.device_id for device in given]):
            outcomes[position] = already_exists("device", given[position].device_id)
        for position, device in enumerate(given):
            refused = self._refused(device)
            if refused is not None:
                outcomes[position] = refused
        accepted = {at: self._registered(device) for at, device in enumerate(given) if at not in outcomes}
        for chunk in _chunks(accepted):
            outcomes |= await self._create_chunk(tenant, chunk)
        trouble = [each for at in accepted if isinstance(each := outcomes[at], ApiError) and each.code in _TROUBLE]
        if trouble and len(trouble) == len(accepted):
            raise trouble[0]
        return BatchCreateDevicesResponse(results=[_result(outcomes[at]) for at in range(len(given))])

    async def update(self, tenant: str, patch: Device, mask: FieldMask) -> Device:
        """Raises DEVICE_NOT_FOUND, ETAG_MISMATCH, INVALID_ARGUMENT for what cannot be changed, or not to that."""
        now = self._clock.now()

        def decide(before: Stored) -> Stored | None:
            changed = rules.updated(before.device, patch, mask, now)
            if changed is None:
                return None
            # Entries that a mask adds to a map add up to more than the request showed.
            refused = self._refused(changed)
            if refused is not None:
                raise invalid_argument(
                    *(Violation(f"device.{each.field}", each.description) for each in refused.violations)
                )
            return Stored(tenant, changed, before.version, before.run)

        return (await self._store.change(tenant, patch.device_id, decide, etag=patch.etag)).device

    def _registered(self, given: Device) -> Device:
        return rules.registered(given.device_id or new_id(self._random_bytes), given, self._clock.now())

    def _refused(self, device: Device) -> ApiError | None:
        """The field rules, for each device by itself: a bad one fails alone."""
        try:
            self._validate(device)
        except ApiError as refusal:
            return refusal
        return None

    async def _create_chunk(self, tenant: str, left: dict[int, Device]) -> dict[int, Device | ApiError]:
        """Commit the devices together, without those that turn out to exist."""
        outcomes: dict[int, Device | ApiError] = {}
        while left:
            try:
                created = await self._store.create_all(tenant, list(left.values()))
            except DeviceExists as exists:
                taken = await self._store.existing(tenant, [device.device_id for device in left.values()])
                taken.add(exists.device_id)
                for at in [at for at, device in left.items() if device.device_id in taken]:
                    outcomes[at] = already_exists("device", left.pop(at).device_id)
            except ApiError as failure:
                return outcomes | dict.fromkeys(left, failure)
            else:
                return outcomes | dict(zip(left, created, strict=True))
        return outcomes


def _chunks(devices: dict[int, Device]) -> Iterator[dict[int, Device]]:
    """Parts of the batch that fit a commit."""
    chunk: dict[int, Device] = {}
    size = 0
    for at, device in devices.items():
        weight = device.ByteSize()
        if chunk and (len(chunk) == TOGETHER or size + weight > TOGETHER_BYTES):
            yield chunk
            chunk, size = {}, 0
        chunk[at] = device
        size += weight
    if chunk:
        yield chunk


def _result(outcome: Device | ApiError) -> BatchCreateDevicesResult:
    if isinstance(outcome, Device):
        return BatchCreateDevicesResult(device=outcome)
    return BatchCreateDevicesResult(
        error=Problem(
            code=RpcCode.Name(outcome.code.grpc_number),
            reason=outcome.reason,
            message=outcome.message,
            violations=(FieldViolation(field=each.field, description=each.description) for each in outcome.violations),
        )
    )
