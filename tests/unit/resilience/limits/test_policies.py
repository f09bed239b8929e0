import pytest

from chassis.config import ConfigError
from chassis.resilience.limits.policies import Policies, Policy, parse

DEFAULT = Policy(500.0, 1000)


def test_a_tenant_without_a_policy_has_the_default() -> None:
    policies = parse(b"", DEFAULT)
    assert policies.of("acme", "v2") == DEFAULT
    assert parse(b"[tenants.other]\nrate = 1", DEFAULT).of("acme", "v2") == DEFAULT
    assert Policies(DEFAULT).of("acme", "v2") == DEFAULT


def test_what_a_table_leaves_out_is_as_above_it() -> None:
    policies = parse(
        b"""
        [tenants.acme]
        rate = 50
        [tenants.acme.v1]
        burst = 7
        [tenants."dots.and~more"]
        burst = 3
        [tenants.acme.v3]
        rate = 0.5
        burst = 1
        """,
        DEFAULT,
    )
    assert policies.of("acme", "v2") == Policy(50.0, 1000)
    assert policies.of("acme", "v1") == Policy(50.0, 7)
    assert policies.of("acme", "v3") == Policy(0.5, 1)
    assert policies.of("dots.and~more", "v2") == Policy(500.0, 3)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("rate = 0", "rate"),
        ("rate = -1", "rate"),
        ("rate = nan", "rate"),
        ("rate = inf", "rate"),
        ("rate = 1e7", "rate"),
        ("rate = true", "rate"),
        ('rate = "5"', "rate"),
        ("burst = 0", "burst"),
        ("burst = -5", "burst"),
        ("burst = 1.5", "burst"),
        ("burst = 100000000", "burst"),
        ("burst = 1" + "0" * 400, "burst"),
        ("speed = 1", "speed"),
        ("[tenants.acme.v2]\nrate = 0", "v2.rate"),
        ("[tenants.acme.two]\nrate = 1", "two"),
        ("[tenants.acme.v2.deep]\nrate = 1", "deep"),
        ("[limits]\nrate = 1", "limits"),
        ("rate = ", "TOML"),
        ("\xff", "TOML"),
    ],
)
def test_absurd_policies_are_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse(f"[tenants.acme]\n{text}\n".encode("latin-1"), DEFAULT)


@pytest.mark.parametrize(
    "text", ["tenants = 1", "tenants.acme = 5", '[tenants.""]\nrate = 1', f"[tenants.{'x' * 129}]"]
)
def test_tables_of_another_shape_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text.encode(), DEFAULT)
