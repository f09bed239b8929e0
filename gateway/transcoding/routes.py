"""The route table: which RPC an HTTP method and path mean.

A trie over path segments. At each segment a literal wins over a variable, and `*` over `**`; on the last one a custom
verb wins over both. The path alone is matched first, then the method: a path that has rules, none of them for the
method, is 405 and not another, less specific path.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.transcoding.schema import Method, Rule
from gateway.transcoding.template import DOUBLE_STAR, STAR, Template, compile_template, decode

API_PREFIX: Final = "/api/"


class RouteError(ValueError):
    """The rules of the protos cannot be served: a bad template, or two that mean the same requests. Stops the start."""


@dataclass(frozen=True, slots=True)
class Route:
    """One HTTP binding of one RPC; `template` is relative to `/api/<version>`."""

    version: str
    rule: Rule
    template: Template
    method: Method

    @property
    def label(self) -> str:
        """The path as it stands in the rule: the low-cardinality name of the route in metrics."""
        return self.rule.path


@dataclass(slots=True)
class _Node:
    literals: dict[str, "_Node"] = field(default_factory=dict)
    star: "_Node | None" = None
    rest: "_Node | None" = None
    verbs: dict[str, dict[str, Route]] = field(default_factory=dict)


class RouteTable:
    """The routes of one version."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._root = _Node()
        self.routes: list[Route] = []
        self._fixed: dict[str, Mapping[str, Route]] = {}
        for route in routes:
            self.add(route)

    def add(self, route: Route) -> None:
        """Raises RouteError naming both when another route means the same requests."""
        node = self._root
        for segment in route.template.segments:
            if segment == STAR:
                node.star = node.star or _Node()
                node = node.star
            elif segment == DOUBLE_STAR:
                node.rest = node.rest or _Node()
                node = node.rest
            else:
                node = node.literals.setdefault(segment, _Node())
        methods = node.verbs.setdefault(route.template.verb, {})
        other = methods.setdefault(route.rule.method, route)
        if other is not route:
            raise RouteError(
                f"{other.method.full_name} ({other.rule.method} {other.rule.path}) and {route.method.full_name} "
                f"({route.rule.method} {route.rule.path}) match the same requests"
            )
        self.routes.append(route)
        if not {STAR, DOUBLE_STAR}.intersection(route.template.segments):
            verb = f":{route.template.verb}" if route.template.verb else ""
            self._fixed["/" + "/".join(route.template.segments) + verb] = methods

    def match(self, path: str) -> tuple[Mapping[str, Route], list[str]] | None:
        """The routes by HTTP method of the raw (still encoded) path `/…`, and its segments without the verb, for
        `Variable.value`; None when there is no such path. Raises MalformedPercent."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, []
        raw = path.split("/")[1:]
        last, colon, verb = raw[-1].rpartition(":")
        decoded = [decode(segment) if "%" in segment else segment for segment in raw]
        if colon and last:
            found = _find(self._root, [*decoded[:-1], decode(last)], 0, decode(verb))
            if found is not None:
                return found, [*raw[:-1], last]
        found = _find(self._root, decoded, 0, "")
        return None if found is None else (found, raw)


def _find(node: _Node, segments: list[str], at: int, verb: str) -> Mapping[str, Route] | None:
    if at == len(segments):
        return node.verbs.get(verb) or (node.rest.verbs.get(verb) if node.rest else None)
    segment = segments[at]
    if not segment:
        return None
    literal = node.literals.get(segment)
    if literal is not None:
        found = _find(literal, segments, at + 1, verb)
        if found is not None:
            return found
    if node.star is not None:
        found = _find(node.star, segments, at + 1, verb)
        if found is not None:
            return found
    if node.rest is not None and all(segments[at:]):
        return node.rest.verbs.get(verb)
    return None


def route_tables(methods: Iterable[Method]) -> dict[str, RouteTable]:
    """Version → its routes, of every rule of every method. Raises RouteError, TemplateError."""
    tables: dict[str, RouteTable] = {}
    for method in methods:
        for rule in method.rules:
            version, slash, rest = rule.path.removeprefix(API_PREFIX).partition("/")
            if not rule.path.startswith(API_PREFIX) or not slash:
                raise RouteError(f"{method.full_name}: {rule.path!r} does not begin with /api/<version>/")
            route = Route(version, rule, compile_template("/" + rest), method)
            tables.setdefault(version, RouteTable()).add(route)
    return tables
