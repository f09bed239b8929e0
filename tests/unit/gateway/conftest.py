"""The compiled test API, made once."""

import pytest

from tests.unit.gateway.shapes import Shapes, compile_shapes


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    return compile_shapes(tmp_path_factory.mktemp("shapes"))
