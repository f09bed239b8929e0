"""Update masks (AIP-134, AIP-161): which fields of a resource a patch changes, read from its descriptor.

A path is field names joined with dots; in a map, the key after the map's name (`labels.site`). A list, and a map named
by itself, is replaced whole. `*` is every field. An empty mask is every field that the patch has set. A field that is
named and not set in the patch is cleared. Paths are applied in their order.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from google.api import field_behavior_pb2 as behavior
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from chassis.api.validation import has_behavior
from chassis.errors import ApiError, Violation, invalid_argument, invalid_field

M = TypeVar("M", bound=Message)

_WHOLE: Final = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration"})
"""Messages that are one value: a path ends at them."""


def apply_update(
    current: M,
    patch: M,
    mask: FieldMask | None,
    *,
    immutable: frozenset[str] = frozenset(),
    output_only: frozenset[str] = frozenset(),
    ignored: frozenset[str] = frozenset({"etag"}),
) -> M:
    """A new message: `current` with what `mask` names taken from `patch`. Neither argument is changed.

    Top-level fields annotated IMMUTABLE or IDENTIFIER join `immutable`; fields annotated OUTPUT_ONLY, at any depth, join
    `output_only` (full paths). `ignored` fields may be named and stay as they are. INVALID_ARGUMENT: on `update_mask`
    for a path that does not exist or is output only, on `<resource>.<field>` for an immutable field with another value.
    """
    descriptor: Any = current.DESCRIPTOR
    fixed = immutable | {
        field.name
        for field in descriptor.fields
        if has_behavior(field, behavior.IMMUTABLE) or has_behavior(field, behavior.IDENTIFIER)
    }
    update = _Update(current, fixed, output_only, ignored)
    paths = list(mask.paths) if mask is not None else []
    if not paths:
        update.whole(patch, [field.name for field, _ in patch.ListFields()])
    elif "*" in paths:
        if len(paths) > 1:
            raise invalid_field("update_mask", "`*` stands alone: it names every field already")
        update.whole(patch, [field.name for field in descriptor.fields])
    else:
        for path in paths:
            update.named(patch, path)
    if update.problems:
        raise invalid_argument(*update.problems)
    result: M = update.result
    return result


class _Update:
    """One update in progress."""

    def __init__(
        self, current: Any, immutable: frozenset[str], output_only: frozenset[str], ignored: frozenset[str]
    ) -> None:
        self.result = type(current)()
        self.result.CopyFrom(current)
        self.problems: list[Violation] = []
        self._immutable = immutable
        self._output_only = output_only
        self._ignored = ignored
        self._resource = _snake(current.DESCRIPTOR.name)

    def whole(self, patch: Any, names: Iterable[str]) -> None:
        """Take these fields, as far as they can be written; the caller did not name them one by one."""
        for name in names:
            field = patch.DESCRIPTOR.fields_by_name[name]
            if name in self._ignored or self._is_output_only(field, name):
                continue
            if name in self._immutable:
                # `*` with the field left out says nothing about it.
                if _is_set(patch, field):
                    self._keep(patch, name)
                continue
            self._take(self.result, patch, field, name)

    def named(self, patch: Any, path: str) -> None:
        """Take what one path of the mask names."""
        target, source = self.result, patch
        names = path.split(".")
        for depth, name in enumerate(names):
            walked = ".".join(names[: depth + 1])
            field = source.DESCRIPTOR.fields_by_name.get(name)
            if field is None:
                raise _unknown(path, names[:depth], name, source.DESCRIPTOR)
            if self._is_output_only(field, walked):
                raise invalid_field("update_mask", f"{_cut(path)!r} is output only: it cannot be changed by an update")
            if depth == 0 and name in self._ignored:
                return
            if depth == 0 and name in self._immutable:
                self._keep(patch, name)
                return
            if depth == len(names) - 1:
                self._take(target, source, field, walked)
                return
            rest = names[depth + 1 :]
            if _is_map(field):
                _take_entry(target, source, field, path, rest)
                return
            if field.is_repeated or not field.message_type or field.message_type.full_name in _WHOLE:
                raise invalid_field(
                    "update_mask", f"{_cut(path)!r} goes on behind {walked!r}, which has no fields of its own"
                )
            if not source.HasField(name) and not target.HasField(name):
                # Nothing to clear; but the rest of the path must exist.
                target = type(getattr(target, name))()
            else:
                target = getattr(target, name)
            source = getattr(source, name)

    def _keep(self, patch: Any, name: str) -> None:
        if getattr(patch, name) != getattr(self.result, name):
            self.problems.append(Violation(f"{self._resource}.{name}", "cannot be changed once the resource is made"))

    def _take(self, target: Any, source: Any, field: FieldDescriptor, path: str) -> None:
        name = field.name
        if not _is_set(source, field):
            target.ClearField(name)
        elif _is_map(field) or field.is_repeated:
            target.ClearField(name)
            getattr(target, name).MergeFrom(getattr(source, name))
        elif field.message_type:
            kept = type(getattr(target, name))()
            kept.CopyFrom(getattr(target, name))
            getattr(target, name).CopyFrom(getattr(source, name))
            getattr(target, name).SetInParent()
            self._restore(getattr(target, name), kept, path)
        else:
            setattr(target, name, getattr(source, name))

    def _restore(self, target: Any, kept: Any, path: str) -> None:
        """Put output-only fields inside a message that was replaced back to what they were."""
        for field in kept.DESCRIPTOR.fields:
            inside = f"{path}.{field.name}"
            if self._is_output_only(field, inside):
                target.ClearField(field.name)
                if _is_set(kept, field):
                    self._take(target, kept, field, inside)
            elif field.message_type and not field.is_repeated and target.HasField(field.name):
                self._restore(getattr(target, field.name), getattr(kept, field.name), inside)

    def _is_output_only(self, field: FieldDescriptor, path: str) -> bool:
        return path in self._output_only or has_behavior(field, behavior.OUTPUT_ONLY)


def _take_entry(target: Any, source: Any, field: Any, path: str, rest: list[str]) -> None:
    key_type, value_type = (field.message_type.fields_by_name[part] for part in ("key", "value"))
    if key_type.type != FieldDescriptor.TYPE_STRING:
        raise invalid_field("update_mask", f"entries of {field.name!r} cannot be named in a mask: name the whole map")
    if len(rest) > 1 or not rest[0]:
        raise invalid_field(
            "update_mask", f"{_cut(path)!r}: a key with a dot in it cannot be named in a mask: name the whole map"
        )
    key, entries, given = rest[0], getattr(target, field.name), getattr(source, field.name)
    if key not in given:
        entries.pop(key, None)
    elif value_type.message_type:
        entries[key].CopyFrom(given[key])
    else:
        entries[key] = given[key]


def _unknown(path: str, above: list[str], name: str, descriptor: Any) -> ApiError:
    names = [field.name for field in descriptor.fields if not has_behavior(field, behavior.OUTPUT_ONLY)]
    near = get_close_matches(name[:64], names, n=1)
    hint = f" (did you mean {'.'.join([*above, near[0]])}?)" if near else ""
    where = ".".join(above) or _snake(descriptor.name)
    return invalid_field("update_mask", f"{_cut(path)!r} does not exist{hint}; {where} has {', '.join(names)}")


def _is_set(message: Any, field: FieldDescriptor) -> bool:
    if field.has_presence:
        return bool(message.HasField(field.name))
    return bool(getattr(message, field.name))


def _is_map(field: Any) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _cut(path: str) -> str:
    return path[:128]


def _snake(name: str) -> str:
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in name).lstrip("_")
