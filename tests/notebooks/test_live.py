"""The live view, in a kernel as JupyterLab starts it: one figure that is updated in place, and what it costs."""

from __future__ import annotations

import os
import queue
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager

from labkit.lab.cluster.cluster import Cluster
from labkit.lab.load import live_view as live
from labkit.lab.load.arrivals import Closed
from labkit.lab.load.live import LiveReader, LiveWriter
from labkit.lab.load.records import FAIL, OK, Recorder
from labkit.run.parts import PartWriter
from labkit.run.schema import Cell

RUN = """
import labkit
p = labkit.ReadScaling.build({"cluster": "shared", "users": 2000, "vus": 20, "connections": 4, "duration_s": 5,
    "rounds": 1, "warmup_s": 0.2, "workloads": "get-user", "keep_cluster": True, "processes": 2,
    "repeat_disturbed": 0, "interventions_s": 0, "arms": "primary-only,replicas-round-robin"})
run = labkit.read_scaling(p)
run
"""


class ThisInterpreter(KernelSpecManager):
    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


def messages(environment: dict[str, str], code: str, deadline_s: float = 120) -> list[dict[str, Any]]:
    """What a kernel with this environment sends while it executes `code`."""
    manager = KernelManager(kernel_spec_manager=ThisInterpreter())
    manager.start_kernel(env=os.environ | environment)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    found = []
    try:
        request = client.execute(code)
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            try:
                message = client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") == request:
                found.append(message)
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    return found
        pytest.fail(f"the kernel took more than {deadline_s:g} s")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def figures(found: list[dict[str, Any]], kind: str) -> list[str]:
    data = [message["content"]["data"] for message in found if message["msg_type"] == kind]
    return [entry["text/html"] for entry in data if "<svg" in entry.get("text/html", "")]


@pytest.mark.slow
def test_a_notebook_in_a_session_shows_one_figure_that_grows(cluster: Cluster) -> None:
    """Within two minutes: two blocks of five seconds."""
    del cluster
    found = messages({"JPY_SESSION_NAME": "read_scaling.ipynb"}, RUN)
    assert not [m["content"] for m in found if m["msg_type"] == "error"]
    assert len(figures(found, "display_data")) == 1
    updates = figures(found, "update_display_data")
    assert 4 <= len(updates) <= 16  # at most once a second
    last = ElementTree.fromstring(updates[-1])
    lines = [element for element in last if element.tag.endswith("polyline")]
    assert len(lines) == 2 * 3  # throughput, p50 and p99 of both arms
    assert all(len(line.get("points", "").split()) >= 3 for line in lines)
    assert "get-user · round 1 · replicas-round-robin · 20 users" in updates[-1]


@pytest.mark.slow
def test_without_a_session_there_is_only_the_bar(cluster: Cluster) -> None:
    del cluster
    found = messages({}, RUN)
    assert not [m["content"] for m in found if m["msg_type"] == "error"]
    assert not figures(found, "display_data")


@pytest.mark.alone
def test_the_live_view_costs_less_than_two_percent_of_a_core(tmp_path: Path) -> None:
    """A second of 40,000 requests, written by the generator, read and drawn by the kernel: under 20 ms of CPU."""
    rng = np.random.default_rng(0)
    path = tmp_path / "live.jsonl"
    shown: list[object] = []
    view = live.LiveView(tmp_path, lambda picture, **_: shown.append(picture) or Updated(shown))
    spent = []
    with PartWriter(tmp_path / "ops" / "part.parquet", "ops") as writer:
        recorder = Recorder(writer, 0, ["pg1"], keep_fresh=True)
        writes = LiveWriter(path, recorder)
        view.begin(Cell(workload="get-user", arm="primary-only", round=0), Closed(1000), [path])
        for second in range(1, 121):
            for latency in rng.gamma(20, 1e6, 400).astype(int).tolist() * 10:
                recorder.add(second * 10**9, 0, latency, 1, "", 0, OK)
            copies = recorder.fresh()
            recorder._unseen = [np.tile(copies, 10)]
            began = time.process_time()
            writes.tick(second * 10**9)
            view._shown_at = 0.0
            view.update()
            str(shown[-1]._repr_html_())  # type: ignore[attr-defined]
            spent.append(time.process_time() - began)
    assert len(view._blocks[-1].seconds) >= 118
    assert np.median(spent[60:]) < 0.02


class Updated:
    def __init__(self, shown: list[object]) -> None:
        self.update = shown.append


def test_shards_are_pooled_and_a_percentile_is_that_of_all(tmp_path: Path) -> None:
    for shard, (latency_ms, outcome) in enumerate([(1, OK), (100, OK), (5, FAIL)]):
        with PartWriter(tmp_path / f"{shard}.parquet", "ops") as writer:
            recorder = Recorder(writer, 0, ["pg1"], keep_fresh=True)
            writes = LiveWriter(tmp_path / f"{shard}.jsonl", recorder)
            writes.tick(10**9)
            for _ in range(50):
                recorder.add(0, 0, latency_ms * 1_000_000, 1, "", 0, outcome)
            writes.tick(2 * 10**9)
    reader = LiveReader(tmp_path / f"{shard}.jsonl" for shard in range(4))  # one has written nothing
    (second,) = reader.seconds().values()
    assert (second.ok, second.errors) == (100, 50)
    assert second.percentile_ms(0.5) == pytest.approx(1, rel=0.02)
    assert second.percentile_ms(0.99) == pytest.approx(100, rel=0.02)
    assert reader.seconds() == {2: second}
