"""What ten million requests cost, the size that labkit supports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from labkit import paths


@pytest.mark.slow
def test_ten_million_requests_are_recorded_in_little_memory_and_drawn_in_seconds() -> None:
    words = [sys.executable, "-m", "benchmarks.memory"]
    done = subprocess.run(words, cwd=paths.home(), stdout=subprocess.PIPE, check=True, timeout=240)
    found = json.loads(done.stdout)
    assert found["record"]["requests"] == pytest.approx(10_000_000, rel=1e-3)
    assert found["record"]["peak_rss_mb"] <= 400
    assert found["record"]["bytes_per_request"] <= 12
    assert found["read"]["peak_rss_mb"] <= 400, "its rows alone would be 130 MB: they are not held together"
    # CPU and not wall-clock seconds: other tests may run beside this one.
    assert sum(found["read"]["cells"].values()) <= 15
