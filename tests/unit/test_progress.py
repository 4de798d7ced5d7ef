"""Progress: a bar here, or a file that shows it in another process."""

import io
import json
import subprocess
import sys
import threading
import time

import pytest

from labkit import progress
from labkit.progress import Progress, follow


class Terminal(io.StringIO):
    """A terminal to draw on, to be put in the place of standard error."""

    def isatty(self):
        return True


def wait_for(terminal, text, deadline_s=5.0):
    give_up = time.monotonic() + deadline_s
    while text not in terminal.getvalue():
        assert time.monotonic() < give_up, f"{text!r} not shown: {terminal.getvalue()!r}"
        time.sleep(0.01)


def test_a_bar_waits_for_its_delay_and_then_shows_label_and_unit(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.delenv("LABKIT_PROGRESS", raising=False)
    with Progress("seeding", 10, "users") as bar:
        bar.update(5)
    assert "seeding" not in terminal.getvalue()
    monkeypatch.setattr(progress, "DELAY_S", 0)
    with Progress("seeding", 10, "users") as bar:
        bar.update(5)
        assert "seeding" in terminal.getvalue()
        assert "users" in terminal.getvalue()


def test_nothing_is_printed_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "DELAY_S", 0)
    monkeypatch.delenv("LABKIT_PROGRESS", raising=False)
    with Progress("seeding", 10, "users") as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""


def test_the_file_holds_one_whole_line_at_all_times(tmp_path, monkeypatch):
    file = tmp_path / "progress.json"
    monkeypatch.setenv("LABKIT_PROGRESS", str(file))
    ended = threading.Event()
    seen = []

    def read_on():
        while not ended.is_set():
            seen.append(json.loads(file.read_text(encoding="utf-8")))

    with Progress("заселение", 2000, "users") as bar:
        reader = threading.Thread(target=read_on)
        reader.start()
        began, done = time.monotonic(), 0
        while time.monotonic() - began < 1.0:
            done += 1
            bar.update(done)
        bar.update(2000)
    ended.set()
    reader.join(timeout=5)
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "label": "заселение", "done": 2000, "total": 2000, "unit": "users",
    }  # fmt: skip
    assert 2 <= len({state["done"] for state in seen}) <= 8  # at most five a second, the first and the last


def test_another_process_is_followed_from_one_bar_to_the_next(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "DELAY_S", 0)
    monkeypatch.setattr(progress, "_BETWEEN_WRITES_S", 0.02)
    file = tmp_path / "progress.json"
    monkeypatch.setenv("LABKIT_PROGRESS", str(file))
    with follow(file):
        with Progress("seeding", 10, "users"):
            wait_for(terminal, "seeding")
        with Progress("measuring", 20, "s"):
            wait_for(terminal, "measuring")


def test_time_is_told_in_plain_seconds_and_a_total_always(tmp_path, monkeypatch):
    """A search lasts longer than was foreseen: its total grows, here and where another process shows it."""
    monkeypatch.setattr(progress, "DELAY_S", 0)
    monkeypatch.delenv("LABKIT_PROGRESS", raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("measuring", 36.0, "s") as bar:
        for done in (2.2866870550001295, 35.9, 42.0):
            bar.update(done)
            bar._bar.refresh()  # at once: else at most ten times a second
    shown = terminal.getvalue()
    for text in ("2 of 36 s", "36 of 36 s", "42 of 42 s"):
        assert text in shown
    assert "?" not in shown
    assert "2.28" not in shown

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("LABKIT_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(progress, "_BETWEEN_WRITES_S", 0.02)
    with follow(tmp_path / "progress.json"), Progress("measuring", 36.0, "s") as bar:
        wait_for(terminal, "0 of 36 s")
        bar.update(42.0)
        wait_for(terminal, "42 of 42 s")


def test_progress_does_not_bring_the_reading_side_along():
    script = "import sys, labkit.progress, labkit.lab.dataset; print({'pandas', 'matplotlib'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60).strip() == "set()"


@pytest.mark.parametrize(("module", "needed"), [("labkit.cli", set()), ("labkit.lab.load.shards", {"pandas"})])
def test_a_command_and_a_load_generator_start_without_what_only_some_need(module, needed):
    heavy = sorted({"pandas", "matplotlib", "scipy", "IPython", "faker", "docker"} - needed)
    script = f"import sys, {module}; print(sorted(set({heavy}) & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60).strip() == "[]"
