"""One route's requests: path, query, body and a few headers to the bytes of the request message.

What binds where (google/api/http.proto): a path variable its field; `body` a field, or everything that the path does
not; the query the rest. A field bound by one and given by another with another value is an error, never an override.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from chassis.errors import ApiError, Violation, invalid_argument, invalid_field
from gateway.transcoding.body import BodyChecker, parse
from gateway.transcoding.cloudevents import translations
from gateway.transcoding.codec import BadValue, Codec, JsonType
from gateway.transcoding.names import as_sent, join, nearest, sent_path
from gateway.transcoding.parameter import expected, json_value, scalar_kind
from gateway.transcoding.query import pairs
from gateway.transcoding.routes import Route
from gateway.transcoding.schema import Field, Kind, Message, Schema
from gateway.transcoding.template import Variable

_MASK: Final = "google.protobuf.FieldMask"
_ETAG: Final = "etag"
_NOT_IN_MASK: Final = frozenset({"OUTPUT_ONLY", "IDENTIFIER", "IMMUTABLE"})

Tree = dict[str, Any]
Path = tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Extras:
    """What headers add to a request; "" where a header was not sent."""

    idempotency_key: str = ""
    if_match: str = ""


NO_EXTRAS: Final = Extras()


class Binder:
    """Builds the requests of one route. Made at the start; immutable. `translations` are the media types that its body may
    have beside JSON, each with what makes it JSON."""

    def __init__(self, route: Route, schema: Schema, codec: Codec, checker: BodyChecker) -> None:
        self._schema = schema
        self._checker = checker
        self._message = schema.messages[route.method.request]
        self._type: JsonType = codec[self._message.name]
        self._variables: list[tuple[Variable, Path]] = [
            (variable, self._resolve(variable.path)) for variable in route.template.variables
        ]
        self._simple = all(len(path) == 1 and path[0].kind is Kind.STRING for _, path in self._variables)
        self.takes_body = bool(route.rule.body)
        self.translations = translations(route, schema)
        self._whole = route.rule.body == "*"
        self._body = self._message.by_name[route.rule.body] if self.takes_body and not self._whole else None
        self.body_name = self._body.name if self._body is not None else ""
        self._etag = self._etag_path()
        policy = route.method.policy
        self._request_id = self._resolve(tuple(policy.idempotency_field.split("."))) if policy.idempotency_field else ()
        self._mask = self._mask_field() if route.rule.method == "PATCH" else None
        self.takes_etag = bool(self._etag)

    def bind(self, raw: list[str], query: bytes, body: bytes, extras: Extras = NO_EXTRAS) -> bytes:
        """The request's bytes. `raw` are the path's segments as `RouteTable.match` gives them, `body` is empty when none
        was sent. Raises ApiError; MalformedPercent for the path."""
        if not query and not body and extras is NO_EXTRAS and self._simple:
            return self._encode({path[0].json_name: variable.value(raw) for variable, path in self._variables})
        tree = self._from_body(body) if body else {}
        if self._mask is not None and body:
            self._fill_mask(tree, query)
        for variable, path in self._variables:
            self._put(tree, path, variable.value(raw), "the path")
        if query:
            self._from_query(tree, query)
        if extras.idempotency_key and self._request_id:
            self._put(tree, self._request_id, extras.idempotency_key, "Idempotency-Key")
        if extras.if_match and self._etag:
            self._put(tree, self._etag, extras.if_match, "If-Match")
        return self._encode(tree)

    def query_fields(self) -> Iterator[tuple[str, Field]]:
        """The query parameters there are, by JSON name, for documentation."""
        if self._whole:
            return
        bound = {path[0].name for _, path in self._variables if len(path) == 1}
        for field in self._message.fields:
            if field is not self._body and field.name not in bound and (scalar_kind(field) or field.is_map):
                yield field.json_name, field

    def _encode(self, tree: Tree) -> bytes:
        try:
            return self._type.to_binary(tree)
        except BadValue:
            raise as_sent(self._checker.explain(self._message, tree), self.body_name) from None

    def _from_body(self, body: bytes) -> Tree:
        value = parse(body)
        if self._body is not None:
            return {self._body.json_name: self._checker.field(self._body, value, "")}
        checked = self._checker.message(self._message, value)
        if not isinstance(checked, dict):
            raise self._checker.explain(self._message, checked)
        return checked

    def _from_query(self, tree: Tree, query: bytes) -> None:
        lists: set[str] = set()
        for name, text in pairs(query):
            plain, key = _split_key(name)
            path = self._parameter(plain, name)
            bound = next((variable for variable, each in self._variables if each == path), None)
            if bound is None and (self._whole or path[0] is self._body):
                raise invalid_field(name, "The field belongs in the body.")
            field = path[-1]
            if field.is_map:
                self._put_entry(tree, path, key, text, name)
            elif key is not None:
                raise invalid_field(name, "The field is not a map.")
            elif field.repeated:
                holder = _descend(tree, path)
                items = holder.setdefault(field.json_name, []) if name not in lists else holder[field.json_name]
                lists.add(name)
                items.append(_value(field, text, name))
            else:
                where = "the path" if bound is not None else ""
                self._put(tree, path, text, where, name)

    def _parameter(self, plain: str, name: str) -> Path:
        message, path = self._message, []
        names = plain.split(".")
        for index, part in enumerate(names):
            field = message.by_name.get(part)
            if field is None:
                raise invalid_field(name, f"There is no such parameter{nearest(part, message)}.")
            path.append(field)
            if index == len(names) - 1:
                break
            if field.kind is not Kind.MESSAGE or field.repeated or field.is_map or scalar_kind(field):
                raise invalid_field(name, f"{field.json_name} has no fields.")
            message = self._schema.messages[field.type_name]
        if scalar_kind(path[-1]) is None:
            raise invalid_field(name, "A message cannot be a parameter; name one of its fields.")
        return tuple(path)

    def _put(self, tree: Tree, path: Path, text: str, where: str, name: str = "") -> None:
        """Set a scalar; another value that is there already is an error, and so is the same one twice in the query."""
        field = path[-1]
        holder = _descend(tree, path)
        name = name or sent_path(".".join(each.name for each in path), self.body_name)
        value = _value(field, text, name)
        there = holder.get(field.json_name)
        if there is not None:
            if not where:
                raise invalid_field(name, "The field is given twice.")
            if there != value and str(there) != text:
                raise invalid_field(name, f"The value differs from the one in {where}.")
        if field.oneof and not where:
            _refuse_second(holder, field, self._holder_message(path), name)
        holder[field.json_name] = value

    def _put_entry(self, tree: Tree, path: Path, key: str | None, text: str, name: str) -> None:
        if key is None:
            raise invalid_field(name, "The field is a map: write name[key]=value.")
        entries = _descend(tree, path).setdefault(path[-1].json_name, {})
        if key in entries:
            raise invalid_field(name, "The key is given twice.")
        entries[key] = _value(path[-1], text, name)

    def _fill_mask(self, tree: Tree, query: bytes) -> None:
        mask, resource = self._mask, self._body
        if mask is None or resource is None or any(name in (mask.name, mask.json_name) for name, _ in pairs(query)):
            return
        given = tree[resource.json_name]
        if isinstance(given, dict):
            message = self._schema.messages[resource.type_name]
            fields = [message.by_name[name] for name in given]
            changed = [
                each.json_name
                for each in fields
                if each.name != _ETAG
                and not each.behaviors & _NOT_IN_MASK
                and all(path != (resource, each) for _, path in self._variables)
            ]
            if changed:
                tree[mask.json_name] = ",".join(changed)

    def _mask_field(self) -> Field | None:
        return next((field for field in self._message.fields if field.type_name == _MASK), None)

    def _etag_path(self) -> Path:
        if self._body is not None and self._body.kind is Kind.MESSAGE and not self._body.repeated:
            etag = self._schema.messages[self._body.type_name].by_name.get(_ETAG)
            return (self._body, etag) if etag else ()
        etag = self._message.by_name.get(_ETAG)
        return (etag,) if etag else ()

    def _resolve(self, names: tuple[str, ...]) -> Path:
        message, path = self._message, []
        for name in names:
            field = message.by_name[name]
            path.append(field)
            if field.kind is Kind.MESSAGE and field.type_name in self._schema.messages:
                message = self._schema.messages[field.type_name]
        return tuple(path)

    def _holder_message(self, path: Path) -> Message:
        return self._schema.messages[path[-2].type_name] if len(path) > 1 else self._message


def _descend(tree: Tree, path: Path) -> Tree:
    """The object that holds the last field of `path`, made where it is missing."""
    for depth, field in enumerate(path[:-1]):
        inner = tree.get(field.json_name)
        if inner is None:
            inner = tree[field.json_name] = {}
        elif not isinstance(inner, dict):
            raise invalid_field(".".join(each.json_name for each in path[: depth + 1]), "An object is expected.")
        tree = inner
    return tree


def _value(field: Field, text: str, name: str) -> object:
    try:
        return json_value(field, text)
    except ValueError:
        raise _unfit(field, name) from None


def _unfit(field: Field, name: str) -> ApiError:
    written = expected(field)
    return invalid_argument(Violation(join("", name), f"{written[:1].upper()}{written[1:]} is expected."))


def _refuse_second(holder: Tree, field: Field, message: Message, name: str) -> None:
    for other in message.fields:
        if other.oneof == field.oneof and other is not field and holder.get(other.json_name) is not None:
            raise invalid_field(name, f"{other.json_name!r} is set already: only one of them may be.")


def _split_key(name: str) -> tuple[str, str | None]:
    """`labels[site]` → (`labels`, `site`); without a key, (name, None)."""
    if name.endswith("]"):
        plain, bracket, key = name[:-1].partition("[")
        if bracket:
            return plain, key
    return name, None
