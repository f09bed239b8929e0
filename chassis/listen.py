"""Addresses to listen on: whether they can be had, told before anything starts and in words that help."""

import errno
import ipaddress
import socket
from typing import Final

from chassis.config import ConfigError

_LAST_PORT: Final = 65535


class PortTaken(ConfigError):
    """Somebody else listens there; the message names the setting to change."""


class CannotListen(ConfigError):
    """The address is not one of this machine, or not ours to use; the message names the setting to change."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith("unix:")


def check_port(host: str, port: int, setting: str) -> None:
    """See that a server could listen there, without leaving one. `setting` is the variable that names the port; 0 takes
    any. Raises PortTaken or CannotListen."""
    if host.startswith("unix:"):
        return
    if port > _LAST_PORT:
        raise CannotListen(f"There is no port {port}: set {setting} to one from 1 to {_LAST_PORT} (0 takes any).")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the servers do: connections of a predecessor that linger in TIME_WAIT are no reason to refuse.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except socket.gaierror:
        raise CannotListen(
            f"{host!r} is not an address of this machine: set {_host_setting(setting)} to one."
        ) from None
    except OSError as problem:
        raise cannot_listen(host, port, setting, problem) from None


def cannot_listen(host: str, port: int, setting: str, problem: OSError) -> ConfigError:
    """The error for a failed bind: PortTaken, or CannotListen."""
    if problem.errno == errno.EADDRINUSE:
        return PortTaken(
            f"Port {port} on {host} is taken: stop what listens there, or set {setting} to a free port (0 takes any)."
        )
    return CannotListen(
        f"Cannot listen on {host}:{port} ({problem.strerror}): set {setting} or {_host_setting(setting)} to a port and"
        " an address that this user may use."
    )


def _host_setting(setting: str) -> str:
    """`BAS_DEVICES_PORT` and `BAS_DEVICES_METRICS_PORT` → `BAS_DEVICES_HOST`."""
    return setting.removesuffix("_PORT").removesuffix("_METRICS") + "_HOST"
