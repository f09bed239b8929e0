"""Every RPC, and every id in its request, is classified; so none escapes the matrix."""

from collections.abc import Mapping

import pytest
from google.protobuf.descriptor import MethodDescriptor

from tests.isolation import matrix
from tests.isolation.cases import CASES, HOW, IDS, NOT_IDS, STOCK, VIEW, Case
from tests.isolation.descriptors import has, methods, naming_fields
from tests.isolation.wire import service_of


def unclassified(found: Mapping[str, MethodDescriptor], cases: Mapping[str, Case]) -> list[str]:
    """What the tables lack."""
    missing = []
    for name, method in found.items():
        if name not in cases:
            missing.append(name)
            continue
        fields = (field for _, field in naming_fields(method.input_type))
        missing += [f"the field {field!r} of {name}" for field in fields if field not in IDS and field not in NOT_IDS]
        if (has(method, "page_token") or has(method, "filter")) and not cases[name].shows:
            missing.append(f"what {name} shows")
        if service_of(method) not in STOCK or service_of(method) not in VIEW:
            missing.append(f"the service of {name}")
    return missing


def test_every_rpc_is_classified() -> None:
    missing = unclassified(methods(), CASES)
    assert not missing, HOW.format(missing=", ".join(missing))


def test_nothing_is_classified_that_is_not_there() -> None:
    assert CASES.keys() <= methods().keys()


@pytest.mark.parametrize("name", CASES)
def test_a_new_rpc_is_found_out(name: str) -> None:
    left = {each: case for each, case in CASES.items() if each != name}
    assert unclassified(methods(), left) == [name]


def test_a_list_that_says_not_what_it_shows_is_found_out() -> None:
    cases = dict(CASES) | {"UserService.ListUsers": Case(CASES["UserService.ListUsers"].request)}
    assert unclassified(methods(), cases) == ["what UserService.ListUsers shows"]


def test_a_new_id_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(IDS, "except_session_id")
    assert unclassified(methods(), CASES) == ["the field 'except_session_id' of SessionService.RevokeUserSessions"]


def test_each_kind_of_check_is_there() -> None:
    kinds = {cell.kind.split(" ")[0] for cell in matrix.cells()}
    assert kinds == {"granted", "smuggled", "by", "foreign", "shows", "follows"}
    assert len(matrix.cells()) + sum(len(each.cells()) for each in matrix.refusals()) > 1500
