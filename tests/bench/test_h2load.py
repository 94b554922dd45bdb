"""Reading what h2load prints, and ending one that hangs."""

import pytest

from bench import h2load

GOOD = """\
starting benchmark...
spawning thread #0: 10 total client(s). 20000 total requests
TLS Protocol: TLSv1.3
Cipher: TLS_AES_128_GCM_SHA256
Application protocol: h2
progress: 10% done
progress: 100% done

finished in 418.12ms, 47832.93 req/s, 1.78MB/s
requests: 20000 total, 20000 started, 20000 done, 20000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 20000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 762.84KB (781150) total, 176.37KB (180600) headers (space savings 90.39%), 234.38KB (240000) data
                     min         max         mean         sd        +/- sd
time for request:       46us     29.94ms      1.84ms      1.37ms    89.24%
"""


def changed(*changes):
    """Return the good output with some of its texts replaced."""
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def test_a_good_run():
    result = h2load.parse(GOOD)
    assert (result.total, result.succeeded, result.failed, result.data) == (20_000, 20_000, 0, 240_000)
    assert (result.protocol, result.trouble) == ("h2", "")
    assert result.seconds == pytest.approx(0.41812)
    assert result.rate == pytest.approx(20_000 / 0.41812)


@pytest.mark.parametrize(("text", "seconds"), [("4.50s", 4.5), ("999us", 0.000999), ("1.5m", 90), ("250.00ms", 0.25)])
def test_units_of_time(text, seconds):
    assert h2load.parse(changed(("418.12ms", text))).seconds == pytest.approx(seconds)


@pytest.mark.parametrize(("changes", "failed"), [
    # Reset streams.
    ([("20000 succeeded, 0 failed, 0 errored", "19000 succeeded, 1000 failed, 1000 errored"),
      ("codes: 20000 2xx", "codes: 19000 2xx")], 1000),
    # Responses of another status count as succeeded for h2load.
    ([("codes: 20000 2xx, 0 3xx, 0 4xx, 0 5xx", "codes: 15000 2xx, 0 3xx, 5000 4xx, 0 5xx")], 5000),
    # The connection broke before the requests were even sent.
    ([("20000 started, 20000 done, 20000 succeeded, 0 failed", "10 started, 20000 done, 10 succeeded, 19990 failed"),
      ("codes: 20000 2xx", "codes: 10 2xx")], 19_990),
    # Heads have come, but not their bodies.
    ([("20000 done, 20000 succeeded, 0 failed", "19999 done, 19998 succeeded, 2 failed")], 2),
])  # fmt: skip
def test_whatever_is_no_good_response_has_failed(changes, failed):
    result = h2load.parse(changed(*changes))
    assert (result.total, result.failed) == (20_000, failed)
    assert result.trouble
    assert result.rate == pytest.approx((20_000 - failed) / 0.41812)


@pytest.mark.parametrize(("output", "errors", "message"), [
    ("", "", "printed nothing"),
    ("", "h2load: unrecognized option '--rps'\n", "unrecognized option"),
    ("starting benchmark...\n", "", "starting benchmark"),
])
def test_output_without_a_summary_is_an_error(output, errors, message):
    with pytest.raises(h2load.H2LoadError, match=message):
        h2load.parse(output, errors)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A function that puts a command named h2load, of a shell script's lines, first on the path."""

    def install(*lines):
        path = tmp_path / "h2load"
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return install


def test_runs_side_by_side_are_added_up(script, tmp_path):
    (tmp_path / "fast").write_text(GOOD)
    one_failed = "20000 succeeded, 0 failed", "19999 succeeded, 1 failed"
    (tmp_path / "slow").write_text(changed(("418.12ms", "2.00s"), one_failed))
    script(f'exec cat {tmp_path}/"$1"')
    result = h2load.run_together([["fast"], ["slow"]])
    assert (result.total, result.failed, result.data, result.seconds) == (40_000, 1, 480_000, 2.0)
    assert result.rate == 39_999 / 2
    assert result.trouble.startswith("1 failed")


def test_one_that_hangs_is_ended_and_all_its_requests_have_failed(script):
    script("exec sleep 60")
    result = h2load.run(["-n", "500"], timeout=0.2)
    assert (result.total, result.failed, result.trouble) == (500, 500, "h2load hung")
    assert h2load.run_watched(["-n", "500"], lambda percent: None, timeout=0.2).failed == 500


def test_progress_is_reported_while_it_runs(script, tmp_path):
    (tmp_path / "good").write_text(GOOD)
    script(f"exec cat {tmp_path}/good")
    seen = []
    assert h2load.run_watched([], seen.append).succeeded == 20_000
    assert seen == [10, 100]


def test_without_h2load_the_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(h2load.H2LoadError, match="nghttp2-client"):
        h2load.run([])


def test_latencies_are_those_of_good_responses(tmp_path):
    log = tmp_path / "log"
    log.write_text("1795272710561723\t200\t515\n1795272710561765\t503\t9\n1795272710561791\t-1\t0\n1\t204\t496\n")
    assert h2load.latencies(log) == pytest.approx([0.000496, 0.000515])


def test_percentiles():
    values = [float(number) for number in range(100)]
    assert [h2load.percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [0.0, 50.0, 99.0, 99.0]
    assert h2load.percentile([], 0.5) == 0.0
