"""Effects that are entries of the audit log: who changed what, ready for the outbox."""

import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from bas.audit.v2.audit_pb2 import OUTCOME_SUCCESS, Entry
from bas.audit.v2.audit_service_pb2 import AppendEntryRequest
from chassis import context
from chassis.outbox.port import AUDIT, Effect

_SUBJECT: Final = 128
_REASON: Final = 256
_SHOWN: Final = 95
is_id: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}").fullmatch


def entry(
    effect_id: str,
    tenant: str,
    service: str,
    action: str,
    resource: tuple[str, str],
    now: datetime,
    more: Mapping[str, Any],
) -> Effect:
    """The effect that appends what the current call has done, or the service itself in background work, to the tenant's
    log. `effect_id` becomes the entry's idempotency key; `action` is `device.created`, `resource` its kind and its name
    (`device`, `devices/d1`), which keeps its entries in order. Of `more`, `reason` and `changedPaths` are told."""
    call = context.current()
    caller = None if call is None else call.caller
    kind, name = resource
    made = Entry(action=action, outcome=OUTCOME_SUCCESS, reason=str(more.get("reason", ""))[:_REASON])
    made.actor.subject = f"service:{service}" if caller is None else fitting(caller.subject)
    if caller is not None and is_id(caller.session_id):
        made.actor.session_id = caller.session_id
    made.resource.type, made.resource.id = kind, name.partition("/")[2]
    if call is not None and is_id(call.request_id):
        made.request_id = call.request_id
    if "changedPaths" in more:
        made.metadata["changedPaths"] = ",".join(more["changedPaths"])
    made.occur_time.FromDatetime(now)
    return Effect(effect_id, AUDIT, tenant, name, AppendEntryRequest(entry=made).SerializeToString())


def fitting(subject: str) -> str:
    """A credential's subject as the log takes it: a longer one ends in a hash, so that no two become one."""
    if len(subject) <= _SUBJECT:
        return subject
    return f"{subject[:_SHOWN]}~{sha256(subject.encode()).hexdigest()[:32]}"
