"""When a worker takes up certificates that have changed, and what it says if it cannot."""

import ssl

import pytest

from gunicorn_h2.workers.renewal import Renewal
from tests.drivers.rig import Log
from tests.drivers.test_closings import Clock
from tests.support.certs import LiveCertificate

INTERVAL = 60


class Rig:
    """Certificates in files, and what looks after them."""

    def __init__(self, certificate, interval=INTERVAL):
        self.certificate, self.clock, self.log, self.loaded = certificate, Clock(), Log(), 0
        self.renewal = Renewal([certificate.certificate, certificate.key], self._load, interval, self.log, self.clock)
        self._load()

    def _load(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate.certificate, self.certificate.key)
        self.loaded += 1

    def check(self, seconds=INTERVAL):
        """Let time pass and have it look; return how often certificates have been loaded."""
        self.clock.now += seconds
        self.renewal.check()
        return self.loaded

    @property
    def logged(self):
        """How many lines have been logged at debug and info level, and which errors."""
        return len(self.log.debugs), len(self.log.infos), self.log.errors


@pytest.fixture
def rig(certs, tmp_path):
    """A certificate in Let's Encrypt's layout, looked at every minute."""
    return Rig(LiveCertificate(tmp_path, certs.authority))


def test_what_has_not_changed(rig):
    rig.certificate.issue()
    for file in (rig.certificate.certificate, rig.certificate.key):
        with open(file, "r+b") as opened:
            content = opened.read()
            opened.seek(0)
            opened.write(content)
    assert rig.check() == rig.check() == 1
    assert rig.logged == (0, 0, [])


def test_a_renewed_certificate(rig):
    rig.certificate.renew()
    assert rig.check() == rig.check() == 2
    rig.certificate.renew()
    assert rig.check() == 3
    assert rig.log.infos == [f"Certificates have changed: new connections get those in {rig.certificate.certificate}, "
                             f"{rig.certificate.key}"] * 2


def test_it_looks_now_and_then(rig):
    rig.certificate.renew()
    assert rig.check(INTERVAL - 1) == 1
    assert rig.check(1) == 2
    rig.certificate.renew()
    assert rig.check(INTERVAL - 1) == 2


@pytest.mark.parametrize("steps", [["privkey", "fullchain"], ["fullchain", "privkey"]], ids="-".join)
def test_key_and_certificate_in_two_steps(rig, steps):
    rig.certificate.issue()
    rig.certificate.link(steps[0])
    assert rig.check() == 1
    rig.certificate.link(steps[1])
    assert rig.check() == 2
    assert rig.logged == (1, 1, [])


def test_files_that_are_being_written(rig):
    """A check may find any beginning of them, or nothing."""
    rig.certificate.issue()
    rig.certificate.link("privkey")
    rig.certificate.link("fullchain")
    with open(rig.certificate.certificate, "r+b") as file:
        content = file.read()
        for size in (0, 1, 100, len(content) // 4):
            file.truncate(0)
            file.seek(0)
            file.write(content[:size])
            file.flush()
            assert rig.check() == 1
        file.seek(0)
        file.write(content)
    assert rig.check() == 2
    assert rig.logged == (4, 1, [])


def test_files_that_stay_broken(rig):
    """One error for each state that they are in."""
    live = rig.certificate
    live.issue()
    live.link("fullchain")
    for _ in range(5):
        assert rig.check() == 1
    (error,) = rig.log.errors
    assert error.startswith("Certificates have changed, but cannot be loaded: [X509: KEY_VALUES_MISMATCH]")
    assert error.endswith(". New connections still get the old ones")
    with open(live.key, "w") as file:
        file.write("no key")
    for _ in range(3):
        assert rig.check() == 1
    assert len(rig.log.errors) == 2
    live.renew()
    assert rig.check() == 2


def test_files_that_are_gone_for_a_while(rig, tmp_path):
    hidden = tmp_path / "hidden"
    (tmp_path / "live").rename(hidden)
    assert rig.check() == rig.check() == rig.check() == 1
    assert "No such file" in rig.log.errors[0]
    assert len(rig.log.errors) == 1
    hidden.rename(tmp_path / "live")
    assert rig.check() == 1
    hidden.mkdir()
    rig.certificate.renew()
    assert rig.check() == 2


def test_what_was_broken_and_is_as_before(rig):
    """It is not loaded again, and the next time it is broken is another time."""
    with open(rig.certificate.key, "r+b") as file:
        key = file.read()
        for _ in range(2):
            file.truncate(0)
            assert rig.check() == 1
            file.seek(0)
            file.write(key)
            file.flush()
            assert rig.check() == 1
    assert rig.logged == (2, 0, [])


def test_a_change_before_the_first_load(certs, tmp_path):
    """What is loaded is at least as new as what is known to be."""
    live = LiveCertificate(tmp_path, certs.authority)

    class Racing(Rig):
        def _load(self):
            if not self.loaded:
                live.renew()
            super()._load()

    rig = Racing(live)
    assert rig.check() == rig.check() == 2


def test_off(certs, tmp_path):
    rig = Rig(LiveCertificate(tmp_path, certs.authority), interval=0)
    rig.renewal.begin()
    rig.certificate.renew()
    assert rig.check(1_000_000) == 1
    assert rig.logged == (0, 0, [])


def test_files_that_the_worker_may_read(rig):
    rig.renewal.begin()
    rig.certificate.renew()
    assert rig.check() == 2


def test_files_that_the_worker_may_not_read(rig, tmp_path):
    (tmp_path / "live").rename(tmp_path / "hidden")
    rig.renewal.begin()
    (tmp_path / "hidden").rename(tmp_path / "live")
    rig.certificate.renew()
    assert rig.check() == rig.check() == 1
    assert rig.log.infos == ["http2_certificate_reload is off, because this worker may not read "
                             f"{rig.certificate.certificate} (No such file or directory): "
                             "a renewed certificate is taken up at SIGHUP"]
