"""SIGTERM is taken as Ctrl-C is, once, and ends the process where nothing is under way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from labkit import cli, interrupts
from labkit.lab.load.shards import LoadInterrupted


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_it_is_raised_once_and_a_second_one_does_not_disturb_what_is_put_in_order() -> None:
    done = []

    def drive() -> None:
        with interrupts.sigterm(then_end=False), interrupts.sigterm():
            try:
                terminate()
            finally:
                terminate()
                done.append("tidied up")

    with pytest.raises(KeyboardInterrupt) as caught:
        drive()
    assert done == ["tidied up"]
    assert interrupts.reason(caught.value) == "interrupted by SIGTERM"
    assert interrupts.exit_code(caught.value) == 143


def test_what_is_under_way_to_be_put_in_order_is_finished_first() -> None:
    done = []

    def drive() -> None:
        with interrupts.sigterm(then_end=False), interrupts.shielded():
            with interrupts.shielded():
                terminate()
            done.append("tidied up")

    with pytest.raises(interrupts.Terminated):
        drive()
    assert done == ["tidied up"]


def test_what_came_of_an_interrupt_says_which_it_was() -> None:
    for first, code in ((interrupts.Terminated(), 143), (KeyboardInterrupt(), 130)):
        with pytest.raises(LoadInterrupted) as caught:
            raise LoadInterrupted([]) from first
        assert interrupts.exit_code(caught.value) == code


def test_a_command_ends_with_the_code_of_what_ended_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("wait")
    def wait() -> None:
        terminate()
        raise AssertionError("it was not interrupted")

    monkeypatch.setitem(cli.main.commands, "wait", wait)
    done = CliRunner().invoke(cli.main, ["wait"])
    assert done.exit_code == 143
    assert done.stderr == "interrupted by SIGTERM; `labkit status` shows what runs\n"


@pytest.fixture
def another_handler() -> Iterator[list[int]]:
    """Of a program that uses labkit and sees to SIGTERM itself; what it was sent."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    yield got
    signal.signal(signal.SIGTERM, before)


def test_a_program_that_handles_it_keeps_its_handler(another_handler: list[int]) -> None:
    with interrupts.sigterm():
        terminate()
    assert another_handler == [signal.SIGTERM]


IDLE = """
from labkit import interrupts
interrupts.before_the_end(print)
"""
DRIVING = """
with interrupts.sigterm():
    try:
        os.kill(os.getpid(), 15)
    finally:
        print("interrupted")
"""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("os.kill(os.getpid(), 15)", ["SIGTERM ended its process"]),
        (DRIVING, ["interrupted", "SIGTERM ended its process"]),
    ],
)
def test_a_script_ends_by_it_once_all_is_in_order(script: str, said: list[str]) -> None:
    words = [sys.executable, "-c", f"import os\n{IDLE}\n{script}\nprint('it went on')"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stdout.splitlines() == said
