"""rediss:// to a server behind TLS: a certificate that is trusted enters, another does not."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chassis import config
from chassis.cache.client import open_cache
from chassis.cache.port import CacheUnavailable
from chassis.telemetry.metrics import Metrics
from tests.support.eventually import eventually
from tests.support.valkey import Valkey


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@pytest.fixture
async def tls_port(valkey: Valkey, tmp_path: Path) -> AsyncIterator[int]:
    """A TLS endpoint on loopback in front of the shared server."""
    certificate, key = _certificate(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    path = valkey.url.removeprefix("unix://").partition("?")[0]

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_unix_connection(path)
        await asyncio.gather(copy(reader, outer), copy(inner, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    await eventually(lambda: len(asyncio.all_tasks()) <= 2, "the connections have ended")


def _settings(port: int, authority: Path) -> config.Redis:
    second = config.Seconds(10.0)
    url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}"
    return config.Redis(url=url, op_timeout=second, connect_timeout=second)


async def test_a_trusted_certificate_enters(tls_port: int, tmp_path: Path) -> None:
    client = open_cache(_settings(tls_port, tmp_path / "server.pem"), Metrics())
    await client.set("k", b"v", ttl=60)
    assert await client.get("k") == b"v"
    assert (await client.command("INFO", "server"))["run_id"].startswith(client.epoch)
    await client.close()


async def test_another_certificate_does_not(tls_port: int, tmp_path: Path) -> None:
    other, _ = _certificate(tmp_path, "other")
    metrics = Metrics()
    client = open_cache(_settings(tls_port, other), metrics)
    with pytest.raises(CacheUnavailable):
        await client.get("k")
    assert metrics.registry.get_sample_value("bas_cache_connection_events_total", {"event": "tls"}) == 1
    await client.close()
