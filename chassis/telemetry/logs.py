"""Structured logs: one line an event on stderr, as JSON or as text for people.

Made once at the start of a process. Lines carry the request id, tenant and method of the call in progress without
anybody passing them. What the libraries say through `logging` goes the same way. Values under names that smell of
credentials are masked, whoever logs them.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from chassis import context
from chassis.config import Log

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_SECRET_NAME: Final = re.compile(r"authorization|token|secret|password|cookie|credential|private", re.IGNORECASE)
_SECRET_TEXT: Final = re.compile(
    r"(?i:bearer\s+)[^\s\"',]+|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*|bas_[A-Za-z0-9.~-]+_[A-Za-z0-9_-]{16,}"
)
_MASK: Final = "***"

Event = MutableMapping[str, Any]


def configure(log: Log, service: str, stream: TextIO | None = None) -> None:
    """Set up structlog and `logging` for this process. `service` names the process on every line; `stream` is stderr
    unless given."""
    out = stream or sys.stderr
    as_json = log.format == "json" or (log.format == "auto" and not out.isatty())
    level = _LEVELS[log.level]

    def add_service(_logger: Any, _method: str, event: Event) -> Event:
        event["service"] = service
        return event

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
        add_call,
        structlog.processors.format_exc_info,
        mask,
    ]
    render: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # The libraries' own debug lines are not ours to show; what they warn of is.
    root.setLevel(max(level, logging.WARNING))


def add_call(_logger: Any, _method: str, event: Event) -> Event:
    """Name the call in progress, if there is one."""
    call = context.current()
    if call is not None:
        event.setdefault("request_id", call.request_id)
        event.setdefault("method", call.method)
        if call.caller is not None:
            event.setdefault("tenant", call.caller.tenant)
    return event


def mask(_logger: Any, _method: str, event: Event) -> Event:
    """Hide credentials: by the name of the value, and by its looks anywhere in a text."""
    for name, value in event.items():
        if _SECRET_NAME.search(name):
            event[name] = _MASK
        elif isinstance(value, str):
            event[name] = _SECRET_TEXT.sub(_MASK, value)
    return event
