"""Faults on demand: each a rule for an RPC, used up after some calls."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls one call. Latency comes first; then `code` or a hang, before the request is applied or, with `after`,
    once it has been (the answer is lost). `results` breaks a stream with `code` after so many answers."""

    code: grpc.StatusCode | None = None
    message: str = "injected fault"
    latency: float = 0.0
    """Seconds, at most 10."""
    hang: bool = False
    """No answer until the client gives up or the server stops."""
    after: bool = False
    results: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.latency <= 10:
            raise ValueError("latency is of 0 to 10 seconds")
        if self.results is not None and self.code is None and not self.hang:
            raise ValueError("a stream breaks with a code or a hang")

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"code": self.code.name if self.code else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Fault":
        code = value.get("code")
        return cls(**(dict(value) | {"code": grpc.StatusCode[code] if code else None}))


def status(code: grpc.StatusCode, message: str = "injected fault") -> Fault:
    """Refused with `code`, nothing applied."""
    return Fault(code, message)


def unavailable() -> Fault:
    return status(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.")


def answer_lost(code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> Fault:
    """Applied, and then answered with `code` all the same."""
    return Fault(code, "The connection broke.", after=True)


def hang(*, after: bool = False) -> Fault:
    return Fault(hang=True, after=after)


def latency(seconds: float) -> Fault:
    return Fault(latency=seconds)


def broken_stream(results: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> Fault:
    """A stream that ends with `code` after `results` answers, or after its last, when it has fewer."""
    return Fault(code, "The stream broke.", results=results)


@dataclass(slots=True)
class Rule:
    """`times` None: for ever. `hits` counts the calls that it befell."""

    rpc: str
    fault: Fault
    times: int | None = 1
    when: Callable[[Any], bool] | None = None
    hits: int = 0


@dataclass(slots=True)
class Faults:
    """The rules, oldest first; the first that fits a call is used."""

    rules: list[Rule] = field(default_factory=list)

    def add(self, rpc: str, fault: Fault, *, times: int | None = 1, when: Callable[[Any], bool] | None = None) -> Rule:
        """`rpc` is the method's name, or `*`; `when` is asked with the request (protobuf)."""
        rule = Rule(rpc, fault, times, when)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        self.rules.clear()

    def take(self, rpc: str, request: Any) -> Fault | None:
        for rule in self.rules:
            if rule.rpc not in {rpc, "*"} or (rule.times is not None and rule.hits >= rule.times):
                continue
            if rule.when is None or rule.when(request):
                rule.hits += 1
                return rule.fault
        return None
