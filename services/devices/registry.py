"""Registering devices, one or many, and changing what was registered."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from bas.devices.v2.devices_pb2 import Device
from bas.devices.v2.devices_service_pb2 import (
    BatchCreateDevicesRequest,
    BatchCreateDevicesResponse,
    BatchCreateDevicesResult,
    CreateDeviceRequest,
)
from chassis.api.batches import chunks, problem_of
from chassis.api.ids import etag_of, new_id
from chassis.api.validation import compile_validator
from chassis.cache.together import together
from chassis.clock import Clock
from chassis.errors import ApiError, Code, Violation, already_exists, invalid_argument
from chassis.store.port import Create, DocumentExists
from chassis.store.requests import RequestLog, item_id
from services.devices import device as rules
from services.devices.records import Stored
from services.devices.store import DeviceExists, DeviceStore

_METHOD: Final = "bas.devices.v2.DeviceService/CreateDevice"

TOGETHER: Final = 100
"""Devices of a batch committed at once: each is a document, and may have an answer and an event, of 500 writes in all."""

TOGETHER_BYTES: Final = 1024 * 1024
"""And their size: a commit has a limit, and a stored label takes about three times its size, and as much in answer and
event."""


_TROUBLE: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED})
"""What makes a batch fail as a whole when it met nothing else: then it can be tried again."""


class Registry:
    def __init__(self, store: DeviceStore, log: RequestLog, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._random_bytes = random_bytes
        self._validate = compile_validator(Device.DESCRIPTOR)

    async def create(self, tenant: str, request: CreateDeviceRequest) -> Device:
        """Raises DEVICE_ALREADY_EXISTS, REQUEST_ID_REUSED."""
        (outcome,) = (await self._create_chunk(tenant, {0: _Item(self._registered(request.device), request)})).values()
        if isinstance(outcome, ApiError):
            raise outcome
        return outcome

    async def create_batch(self, tenant: str, request: BatchCreateDevicesRequest) -> BatchCreateDevicesResponse:
        """One result for each, in order. Raises what the store raises when it takes none of them."""
        given = request.devices
        outcomes: dict[int, Device | ApiError] = {}
        for position in rules.duplicates([device.device_id for device in given]):
            outcomes[position] = already_exists("device", given[position].device_id)
        for position, device in enumerate(given):
            refused = self._refused(device)
            if refused is not None:
                outcomes[position] = refused
        accepted = {
            at: _Item(self._registered(device), _as_one(device, item_id(request.request_id, at)))
            for at, device in enumerate(given)
            if at not in outcomes
        }
        for chunk in chunks(accepted, TOGETHER, TOGETHER_BYTES, lambda item: item.device.ByteSize()):
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

    async def _create_chunk(self, tenant: str, chunk: dict[int, "_Item"]) -> dict[int, Device | ApiError]:
        """Commit the devices together, without those that turn out to exist or to be repetitions."""
        left = dict(chunk)
        outcomes: dict[int, Device | ApiError] = {}
        for _ in range(len(chunk) + 1):
            if not left:
                break
            try:
                created = await self._store.create_all(
                    tenant, [item.device for item in left.values()], self._answers(tenant, left)
                )
            except (DeviceExists, DocumentExists) as taken:
                found = await self._taken(tenant, left, taken)
                outcomes |= found
                left = {at: item for at, item in left.items() if at not in found}
            except ApiError as failure:
                return outcomes | dict.fromkeys(left, failure)
            else:
                return outcomes | dict(zip(left, created, strict=True))
        return outcomes | dict.fromkeys(left, _contended())

    def _answers(self, tenant: str, items: "dict[int, _Item]") -> list[Create]:
        """What keeps the answers of requests that may be repeated."""
        return [
            self._log.write_for(tenant, _METHOD, item.request.request_id, item.request, item.device)
            for item in items.values()
            if item.request.request_id
        ]

    async def _taken(self, tenant: str, items: "dict[int, _Item]", stumbled: ApiError) -> dict[int, Device | ApiError]:
        """The outcomes of those that cannot be created: a repetition gets its first answer, a stranger is refused."""
        answers = await together(self._first_answer(tenant, item) for item in items.values())
        outcomes = {at: answer for at, answer in zip(items, answers, strict=True) if answer is not None}
        taken = await self._store.existing(tenant, [item.device.device_id for item in items.values()])
        if isinstance(stumbled, DeviceExists):
            taken.add(stumbled.device_id)
        for at, item in items.items():
            if at not in outcomes and item.device.device_id in taken:
                outcomes[at] = already_exists("device", item.device.device_id)
        return outcomes

    async def _first_answer(self, tenant: str, item: "_Item") -> Device | ApiError | None:
        try:
            kept = await self._log.find(tenant, _METHOD, item.request.request_id, item.request)
        except ApiError as refusal:
            return refusal
        if kept is None:
            return None
        device = Device.FromString(kept.response)
        device.etag = etag_of(kept.version)
        return device


@dataclass(frozen=True, slots=True)
class _Item:
    """A device to create, and the request whose repetition gets the same answer."""

    device: Device
    request: CreateDeviceRequest


def _as_one(device: Device, request_id: str) -> CreateDeviceRequest:
    """The request that would make this item alone; looked at only under a request id."""
    return CreateDeviceRequest(device=device, request_id=request_id) if request_id else CreateDeviceRequest()


def _contended() -> ApiError:
    return ApiError(Code.ABORTED, "CONTENTION", "The same devices are being created by others: try again.")


def _result(outcome: Device | ApiError) -> BatchCreateDevicesResult:
    if isinstance(outcome, Device):
        return BatchCreateDevicesResult(device=outcome)
    return BatchCreateDevicesResult(error=problem_of(outcome))
