"""What is looked at before anything is started: the data folder, whether it is in use, and every port.

All of it raises Failure with exit code 2 and the name of the setting to change.
"""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chassis.config import Config, ConfigError
from chassis.listen import check_port
from launcher.failure import misuse
from launcher.targets import GATEWAY, SERVICES, Address, endpoint


@contextmanager
def data_folder(path: Path) -> Iterator[Path]:
    """The folder, made if need be, readable by its owner only, and held by this process alone while the block runs.

    The lock is on the folder itself: no lock file stays behind, and the kernel lets go of it however we end.
    """
    path = path.absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as problem:
        raise misuse(
            f"the data folder {path} cannot be written ({problem.strerror}): set BAS_DATA_DIR to a folder that can."
        ) from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise misuse(
            f"another `bas up` is running on the data folder {path}: stop that one, or set BAS_DATA_DIR to another folder."
        ) from None
    try:
        yield path
    finally:
        os.close(held)


def free_ports(config: Config) -> dict[str, str]:
    """Settings that replace each port 0 by one that is free, for all processes to agree on."""
    settings: dict[str, str] = {}
    with ExitStack() as held:  # all stay open until all are chosen, so that no two are the same

        def choose(host: str) -> str:
            listener = held.enter_context(_socket(host))
            _bind(listener, host, 0)
            return str(listener.getsockname()[1])

        if config.gateway.port == 0:
            settings["BAS_GATEWAY_PORT"] = choose(config.gateway.host)
        for service in SERVICES:
            section = endpoint(config, service)
            if section.port == 0:
                settings[f"BAS_{service.upper()}_PORT"] = choose(section.host)
            if section.metrics_port == 0 or (section.port == 0 and section.metrics_port < 0):
                settings[f"BAS_{service.upper()}_METRICS_PORT"] = choose(section.host)
    return settings


def check_ports(addresses: Iterable[Address]) -> None:
    """Every address can be listened on, and no two are the same."""
    seen: dict[tuple[str, int], Address] = {}
    for address in addresses:
        twin = seen.setdefault((address.host, address.port), address)
        if twin is not address:
            raise misuse(
                f"{address.setting} and {twin.setting} are both {address.port}: give one of them another port."
            )
        try:
            check_port(address.host, address.port, address.setting)
        except ConfigError as problem:
            raise misuse(f"the {_whose(address)}: {problem}") from None


def _whose(address: Address) -> str:
    return "gateway" if address.target == GATEWAY else f"{address.purpose} port of {address.target}"


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def _bind(listener: socket.socket, host: str, port: int) -> None:
    # Without this, connections that are still closing would count as somebody who listens.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(1)
