"""The figure of a load while it runs: it says what it shows, over time, and stays readable when loads change."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from labkit.lab.load import live_view as live
from labkit.lab.load.arrivals import Arrivals, Closed, Open, Stage
from labkit.lab.load.live import _CLASS, Second
from labkit.run.schema import Cell

USERS = Closed(1000)


def second(per_s: int, latency_ms: float) -> Second:
    return Second(ok=per_s, classes=Counter({int(math.log(latency_ms * 1e6) / _CLASS): per_s}))


class Load:
    """A live view that is told of blocks as a run tells it, and what it shows then."""

    def __init__(self) -> None:
        self.pictures: list[Any] = []
        self.view = live.LiveView(Path(), lambda picture, **_: self.pictures.append(picture) or self)
        self.at = 5_000

    def update(self, picture: Any) -> None:
        self.pictures.append(picture)

    def block(self, seconds: list[Second], when: Arrivals = USERS, **cell: Any) -> ElementTree.Element:
        names = {"workload": "get-user", "arm": "primary-only", "round": 0} | cell
        self.view.begin(Cell(**names), when, [])
        times = range(self.at, self.at + len(seconds))
        self.view._reader = Read(dict(zip(times, seconds, strict=True)))  # type: ignore[assignment]
        self.view.end([])
        self.at += len(seconds) + 1
        return ElementTree.fromstring(self.pictures[-1]._repr_html_())


class Read:
    def __init__(self, seconds: dict[int, Second]) -> None:
        self._seconds = seconds

    def seconds(self) -> dict[int, Second]:
        return self._seconds


def texts(picture: ElementTree.Element) -> list[str]:
    return ["".join(element.itertext()) for element in picture if element.tag.endswith("text")]


def lines(picture: ElementTree.Element) -> list[list[tuple[float, float]]]:
    found = [element.get("points", "") for element in picture if element.tag.endswith("polyline")]
    return [[(float(x), float(y)) for x, y in (point.split(",") for point in line.split())] for line in found]


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (Closed(1), "1 user"),
        (Closed(1000), "1,000 users"),
        (Closed(1, stages=(Stage(1000, 5),)), "1 user, then 1,000"),
        (Open(3000), "3,000 requests/s asked for"),
    ],
)
def test_it_names_workload_round_arm_and_load(when: Arrivals, words: str) -> None:
    picture = Load().block([second(500, 2.0)] * 3, when, arm="replicas-round-robin", round=2)
    assert f"get-user · round 3 · replicas-round-robin · {words}" in texts(picture)
    assert "500/s, p99 1.99 ms" in texts(picture)


def test_it_says_what_is_tried_and_what_was_changed() -> None:
    load = Load()
    assert texts(load.block([], phase="doubling"))[0] == "get-user · round 1 (doubling) · primary-only · 1,000 users"
    for intervention, words in (("nothing", "nothing changed"), ("users halved", "users halved")):
        shown = texts(load.block([], phase="intervention", intervention=intervention))
        assert shown[0].startswith(f"get-user · round 1 (intervention: {words}) · ")


def test_before_the_first_answer_it_says_so() -> None:
    assert "no answer yet" in texts(Load().block([]))


def test_the_axis_counts_seconds_since_the_load_began_and_rounds_stand_one_after_the_other() -> None:
    load = Load()
    for number, arm in enumerate(("primary-only", "replicas-round-robin", "primary-only")):
        picture = load.block([second(1000, 5.0)] * 9, arm=arm, round=number // 2)
    shown = texts(picture)
    assert "seconds since the load began" in shown
    assert shown[-7:-1] == ["0", "5", "10", "15", "20", "25"]
    first, second_, third = lines(picture)[:3]
    assert first[-1][0] < second_[0][0] < second_[-1][0] < third[0][0]
    assert {text.strip() for text in shown if "━" in text} == {"━ primary-only  ━ replicas-round-robin"}


def test_a_change_of_the_load_leaves_both_readable() -> None:
    """From one user to a thousand latency grows a hundredfold: on a linear axis the first would be a line at zero."""
    load = Load()
    load.block([second(4_000, 0.2)] * 5, Closed(1), arm="a")
    picture = load.block([second(30_000, 40.0)] * 5, Closed(1000), arm="a")
    drawn = lines(picture)
    assert len(drawn) == 2 * 3
    few, many = drawn[2][0][1], drawn[3][0][1]  # p50
    assert few - many > 60, "half of the panel apart"
    base = max(y for line in drawn[2:4] for _, y in line)
    assert base - few < 0.9 * live._HEIGHT
    ticks = [text for text in texts(picture) if re.fullmatch(r"[\d.,]+", text)]
    assert {"1", "10", "50"} <= set(ticks)


def test_another_workload_has_a_scale_of_its_own() -> None:
    load = Load()
    load.block([second(40_000, 0.5)] * 5)
    picture = load.block([second(90, 300.0)] * 5, workload="search-users")
    assert len(lines(picture)) == 3
    assert "100" in texts(picture)
    assert "50,000" not in texts(picture)
    assert "6" in texts(picture), "time goes on counting"


def test_only_the_last_two_minutes_are_kept() -> None:
    load = Load()
    for number in range(60):
        picture = load.block([second(1000, 5.0)] * 9, round=number)
    assert len(load.view._blocks) <= 13
    assert len(lines(picture)) <= 3 * 13
    assert "580" in texts(picture)
    assert "400" not in texts(picture)


def test_one_second_alone_is_a_dot() -> None:
    assert all(len(line) == 2 for line in lines(Load().block([second(1000, 5.0)])))
