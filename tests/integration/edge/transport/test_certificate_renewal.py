"""A renewal that goes wrong is told where operators look, and takes no phone's connection away (T20)."""

import asyncio
import shutil
import ssl
import time
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from edge.transport import tls
from edge.transport.tls import Certificates
from tests.kit.secure import Authority
from tests.kit.transport import TestEdge, running

EXPIRY = "ramal_edge_certificate_expiry_timestamp_seconds"
DAY = 86_400


class Site:
    """Files of a certificate that an edge serves by, and pairs that may be copied over them."""

    def __init__(self, directory: Path) -> None:
        self._authority = Authority(directory, "authority")
        self.certificate, self.key = directory / "fullchain.pem", directory / "privkey.pem"

    def copy(self, name: str, *, days: float, key: bool = True) -> None:
        """A pair of this name, valid for so many days from now; or only its certificate."""
        issued = self._authority.issue(name, [name, "127.0.0.1"], ends=days)
        shutil.copy(issued.certificate, self.certificate)
        if key:
            shutil.copy(issued.key, self.key)

    async def shown(self, edge: TestEdge) -> str:
        """The name in the certificate that a new connection is shown, verified."""
        context = ssl.create_default_context(cafile=str(self._authority.file))
        _, writer = await asyncio.open_connection("127.0.0.1", edge.port("tls"), ssl=context)
        names = dict(writer.get_extra_info("peercert")["subjectAltName"])
        writer.close()
        return str(names["DNS"])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.0)
    made = Site(tmp_path)
    made.copy("first.test", days=5)
    return made


def left() -> float:
    """Days until the certificate in force expires, as Prometheus reads them."""
    ends = REGISTRY.get_sample_value(EXPIRY)
    assert ends is not None
    return (ends - time.time()) / DAY


async def test_t20_the_metric_follows_new_files_before_anybody_connects(site: Site) -> None:
    certificates = Certificates(str(site.certificate), str(site.key))
    assert left() == pytest.approx(5, abs=0.01)
    site.copy("second.test", days=90)
    assert left() == pytest.approx(90, abs=0.01)
    assert certificates.trouble(time.monotonic()) == ""


async def test_t20_what_has_expired_replaces_nothing_that_is_valid(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = Certificates(str(site.certificate), str(site.key))
    async with running("tls", certificates=certificates) as edge:
        site.copy("old.test", days=-1)
        assert await site.shown(edge) == "first.test"
        told = "changed certificate files cannot be used yet: the new certificate has expired already"
        assert certificates.trouble(time.monotonic()) == told
        assert await site.shown(edge) == "first.test"
        assert sum("cannot be used yet" in record.message for record in caplog.records) == 1
        site.copy("second.test", days=90)
        assert await site.shown(edge) == "second.test"
        assert certificates.trouble(time.monotonic()) == ""


async def test_t20_a_certificate_without_its_key_is_told_until_the_key_has_come(site: Site) -> None:
    certificates = Certificates(str(site.certificate), str(site.key))
    async with running("tls", certificates=certificates) as edge:
        site.copy("second.test", days=90, key=False)
        assert "key values mismatch" in certificates.trouble(time.monotonic())
        assert await site.shown(edge) == "first.test"
        assert left() == pytest.approx(5, abs=0.01), "of the one in force"
        site.copy("second.test", days=90)
        assert certificates.trouble(time.monotonic()) == ""
        assert await site.shown(edge) == "second.test"


def test_t20_one_that_expires_while_it_serves_is_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    now = time.time()
    certificates = Certificates(str(site.certificate), str(site.key), clock=lambda: now)
    assert certificates.trouble(0) == ""
    now += 6 * DAY
    assert certificates.trouble(0) == "RAMAL_EDGE_CERTIFICATE has expired: no phone connects by TLS or WSS"
    site.copy("old.test", days=-1)
    assert certificates.trouble(0).startswith("RAMAL_EDGE_CERTIFICATE has expired"), "as good as the one in force"
    assert "the certificate has expired" in caplog.text
