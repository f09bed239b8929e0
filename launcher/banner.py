"""What `bas up` says once everything is healthy: where it listens, and lines to paste."""

import os
import shlex
import sys
from pathlib import Path

from chassis.config import Config
from launcher.probe import reachable
from launcher.targets import GATEWAY, addresses

_READ_DEVICE = "bas.devices.v2.DeviceService/GetDevice"


def banner(config: Config, *, seconds: float, redis: str) -> str:
    """`seconds` is how long the start took; `redis` a URL without its password."""
    api = f"http://{reachable(config.gateway.host)}:{config.gateway.port}/api"
    grpc = f"{_name(config.devices.host)}:{config.devices.port}"
    header = '-H "Authorization: Bearer $TOKEN"'
    device = """'{"deviceId": "d1", "displayName": "Boiler 7"}'"""
    lines = [
        f"BAS is up after {seconds:.1f} s; data in {Path(config.data.dir).absolute()}",
        "",
        *(f"  {target:<9} {text}" for target, text in listening(config).items()),
        f"  {'cache':<9} {redis}",
        "",
        "In a second terminal, in this folder:",
        "",
        f"  export TOKEN=$({command(config)} token --tenant acme)",
        f"  curl -sS -w '\\n' {api}/devices {header} -H 'Content-Type: application/json' -d {device}",
        f"  curl -sS -w '\\n' {api}/devices/d1 {header}",
        f"  grpcurl -plaintext {grpc} list",
        f"""  grpcurl -plaintext {header} -d '{{"device_id": "d1"}}' {grpc} {_READ_DEVICE}""",
        "",
        "Ctrl-C stops it all.",
    ]
    return "\n".join(lines)


def listening(config: Config) -> dict[str, str]:
    """Target → where it listens, the gateway first."""
    found: dict[str, str] = {GATEWAY: f"http://{reachable(config.gateway.host)}:{config.gateway.port}"}
    for address in addresses(config):
        if address.purpose == "gRPC":
            found[address.target] = f"grpc {address}"
        elif address.purpose == "metrics":
            found[address.target] += f", metrics http://{reachable(address.host)}:{address.port}/metrics"
    return found


def command(config: Config) -> str:
    """`bas` as it is typed from here, with what makes it find the same data folder."""
    script = Path(sys.executable).parent / "bas"
    here = Path.cwd()
    name = str(script.relative_to(here)) if script.is_relative_to(here) else str(script)
    if "BAS_DATA_DIR" in config.sources or "BAS_CONFIG_FILE" in os.environ:
        return f"BAS_DATA_DIR={shlex.quote(str(Path(config.data.dir).absolute()))} {shlex.quote(name)}"
    return shlex.quote(name)


def _name(host: str) -> str:
    return "localhost" if reachable(host) == "127.0.0.1" else host
