import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chassis.config import Config, Devices, Gateway, load
from launcher.failure import Failure
from launcher.preflight import check_ports, data_folder, free_ports
from launcher.targets import Address, addresses, chosen


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def at(port: int, setting: str = "BAS_DEVICES_PORT", host: str = "127.0.0.1") -> Address:
    return Address("devices", "gRPC", host, port, setting)


def refused(*addresses: Address) -> str:
    with pytest.raises(Failure) as failure:
        check_ports(addresses)
    assert failure.value.exit_code == 2
    return str(failure.value)


def test_a_taken_port_names_its_setting(taken: int) -> None:
    message = refused(at(taken))
    assert str(taken) in message
    assert "BAS_DEVICES_PORT" in message


def test_two_settings_with_one_port_name_each_other() -> None:
    port = int(free_ports(Config(gateway=Gateway(port=0), devices=Devices(port=1)))["BAS_GATEWAY_PORT"])
    message = refused(at(port), at(port, "BAS_DEVICES_METRICS_PORT"))
    assert "BAS_DEVICES_PORT" in message
    assert "BAS_DEVICES_METRICS_PORT" in message


def test_an_address_of_another_machine_names_the_host_setting() -> None:
    assert "BAS_DEVICES_HOST" in refused(at(4711, host="192.0.2.1"))
    assert "BAS_DEVICES_HOST" in refused(at(4711, host="no such host"))


def test_metrics_beyond_the_last_port_are_refused() -> None:
    message = refused(*addresses(Config(devices=Devices(port=65000)), ["devices"]))
    assert "BAS_DEVICES_METRICS_PORT" in message


def test_free_ports_are_chosen_for_zero_only_and_differ() -> None:
    config = load({"BAS_GATEWAY_PORT": "0", "BAS_DEVICES_PORT": "0"})
    settings = free_ports(config)
    assert set(settings) == {"BAS_GATEWAY_PORT", "BAS_DEVICES_PORT", "BAS_DEVICES_METRICS_PORT"}
    assert len(set(settings.values())) == 3
    check_ports(addresses(load(settings)))
    assert free_ports(Config()) == {}
    assert set(free_ports(Config(devices=Devices(metrics_port=0)))) == {"BAS_DEVICES_METRICS_PORT"}


def test_metrics_are_on_the_grpc_port_and_a_thousand() -> None:
    by_purpose = {address.purpose: address.port for address in addresses(Config(), ["devices"])}
    assert by_purpose == {"gRPC": 50053, "metrics": 51053}
    moved = replace(Config(), devices=Devices(metrics_port=7))
    assert addresses(moved, ["devices"])[1].port == 7


def test_the_data_folder_is_made_private_and_left_clean(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with data_folder(path) as folder:
        assert folder == path
        assert path.stat().st_mode & 0o777 == 0o700
    assert list(path.iterdir()) == []


def test_one_data_folder_has_one_platform(tmp_path: Path) -> None:
    with data_folder(tmp_path), pytest.raises(Failure, match="BAS_DATA_DIR") as failure, data_folder(tmp_path):
        pass
    assert failure.value.exit_code == 2
    with data_folder(tmp_path):
        pass


@pytest.mark.parametrize("path", ["file/below", "file"])
def test_a_folder_that_cannot_be_written_names_its_setting(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="BAS_DATA_DIR") as failure, data_folder(tmp_path / path):
        pass
    assert failure.value.exit_code == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_names_its_setting(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Failure, match="BAS_DATA_DIR"), data_folder(tmp_path):
        pass


def test_targets_are_taken_once_and_in_order() -> None:
    assert chosen(["gateway", "devices", "gateway"]) == ("gateway", "devices")


def test_a_target_that_is_not_there_is_refused() -> None:
    with pytest.raises(Failure, match="not a target") as failure:
        chosen(["nonsense"])
    assert failure.value.exit_code == 2
    assert "devices" in str(failure.value)
