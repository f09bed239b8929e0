"""A call of another process that fails by chance."""

from chassis.errors import ApiError, Code, deadline_exceeded
from chassis.interceptors.client import Metadata, UnaryCall
from tests.faults.fate import Fate


class FaultyCall:
    """The UnaryCall port over `inner`: what is refused is UNAVAILABLE as a lost connection is, with no details."""

    def __init__(self, inner: UnaryCall, fate: Fate) -> None:
        self._inner = inner
        self.fate = fate

    async def __call__(self, request: bytes, timeout: float | None = None, metadata: Metadata = ()) -> bytes:  # noqa: ASYNC109 - the port's
        return await self.fate.befall(lambda: self._inner(request, timeout, metadata), _away, deadline_exceeded)


def _away() -> ApiError:
    return ApiError(Code.UNAVAILABLE, "UNAVAILABLE", "The connection was lost.")
