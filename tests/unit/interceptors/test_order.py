from chassis.interceptors.client import CLIENT_ORDER
from chassis.interceptors.server import ORDER


def test_the_order_of_the_server_chain() -> None:
    assert ORDER == (
        "recovery", "request_id", "metrics", "error_mapping", "load_shedding", "deadline", "authentication",
        "rate_limit", "validation",
    )  # fmt: skip


def test_the_order_of_the_client_chain() -> None:
    assert CLIENT_ORDER == ("metrics", "deadline", "retry", "breaker", "call")
