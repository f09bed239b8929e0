"""What a service of this release is built from, imported when it is asked for: `bas up` itself needs none of them."""

import importlib

from chassis.module import ServiceSpec
from launcher.targets import SERVICES


def spec_of(service: str) -> ServiceSpec:
    """`SPEC` of the service's module. Raises TypeError for a module that exports another thing: a programming error."""
    spec = importlib.import_module(SERVICES[service]).SPEC
    if not isinstance(spec, ServiceSpec):
        raise TypeError(f"{SERVICES[service]}.SPEC is not a ServiceSpec")
    return spec
