import json

import numpy as np
import pytest

from simulators.config import ConfigError, encode, load
from simulators.latency import SLOT_MIDDLES, SLOT_WIDTHS, Latency, LatencyTable


@pytest.fixture
def read(tmp_path, configure):
    """`read(content)`: the latency of a configuration that names a CSV file of this content beside it."""

    def latency(content: str | bytes) -> Latency:
        (tmp_path / "gateway.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        document = json.loads(encode(configure()))
        document["card"]["latency"] = {"kind": "empirical", "file": "gateway.csv"}
        (tmp_path / "simulators.json").write_text(json.dumps(document))
        return load(tmp_path / "simulators.json").card.latency

    return latency


SAMPLES = np.random.default_rng(3).gamma(2, 90, 5_000)


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(f"{sample:.3f}ms" for sample in SAMPLES),
        "latency_ms\r\n" + "\r\n".join(f"{sample:.3f}" for sample in SAMPLES),
        "at,latency_ms,status\n" + "\n".join(f'"a, b",{sample:.3f},200' for sample in SAMPLES),
        b"\xef\xbb\xbflatency_ms\n\n" + "\n\n".join(f"{sample:.3f}" for sample in SAMPLES).encode(),
    ],
    ids=["durations", "column", "columns", "byte-order-mark"],
)
def test_a_file_of_samples_stands_for_their_percentiles(read, content):
    latency = read(content)
    shares = np.array([0.05, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999])
    assert latency.quantiles_ms(shares) == pytest.approx(np.quantile(SAMPLES, shares), rel=0.01)
    assert latency.quantiles_ms(SLOT_MIDDLES) @ SLOT_WIDTHS == pytest.approx(SAMPLES.mean(), rel=0.01)
    assert LatencyTable(latency).quantiles_ms[-1] == pytest.approx(SAMPLES.max(), abs=1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no latencies in it"),
        ("latency_ms\n", "no latencies in it"),
        ("12ms\n5\n", "line 2: '5' is not a duration; write a number with a unit"),
        ("latency,latency_ms\n1,5\n2,x\n", "line 3: latency_ms is 'x'; it must be a number of ms from 0 to"),
        ("latency_ms\n-1\n", "line 2: latency_ms is '-1'; it must be a number of ms from 0 to"),
        ("latency_ms\nnan\n", "line 2: latency_ms is 'nan'; it must be a number of ms from 0 to"),
        ("at,latency_ms\n1\n", "line 2: no column latency_ms in it"),
        ("1ms,2ms\n", "line 1: 2 columns, and none had latency_ms in the first line"),
        (b"\xff\xfe5\x00", "'utf-8' codec can't decode"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(read, tmp_path, content, reason):
    with pytest.raises(ConfigError) as error:
        read(content)
    assert (error.value.file, error.value.key) == (str(tmp_path / "simulators.json"), "card.latency.file")
    assert error.value.reason.startswith(f"gateway.csv: {reason}")


def test_a_missing_file_of_samples_is_refused(tmp_path):
    parts = [{"weight": 1, "latency": {"kind": "empirical", "file": "none.csv"}}]
    (tmp_path / "simulators.json").write_text(json.dumps({"upi": {"latency": {"kind": "mixture", "parts": parts}}}))
    with pytest.raises(ConfigError) as error:
        load(tmp_path / "simulators.json")
    assert (error.value.key, error.value.reason) == ("upi.latency.parts[0].latency.file", "none.csv: No such file or directory")


def test_file_and_percentiles_exclude_each_other(tmp_path):
    latency = {"kind": "empirical", "file": "a.csv", "percentiles": {"50": "1s", "99": "2s"}}
    (tmp_path / "simulators.json").write_text(json.dumps({"card": {"latency": latency}}))
    with pytest.raises(ConfigError, match=r"card\.latency: file and percentiles exclude each other"):
        load(tmp_path / "simulators.json")
