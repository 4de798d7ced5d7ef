"""SIGTERM is taken as Ctrl-C is: batch systems, `timeout` and systemd send it, often twice, and wait a little.

Within `sigterm()` it is raised in the main thread, as Terminated, a KeyboardInterrupt: whoever tidies up after the one
does so after the other. Only the first is; a second one while things are put in order would leave them half done.
Where nothing is under way, `put_in_order` is called, and the process ends by the signal.

A program that handles SIGTERM itself keeps its handler, and nothing here changes anything for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM."""


@dataclass
class _State:
    sections: int = 0
    """How many `sigterm()` are open."""
    shields: int = 0
    """How many `shielded()` are open."""
    waiting: bool = False
    """It came within `shielded()`."""
    raised: bool = False
    """It was raised within what is open now."""
    left_open: list[Callable[[str], object]] = field(default_factory=list)


_state = _State()


@contextlib.contextmanager
def sigterm(*, then_end: bool = True) -> Iterator[None]:
    """Raise SIGTERM here, as Terminated. May be nested; the outermost ends this process afterwards, by SIGTERM.

    Not with `then_end` false: then whoever catches Terminated says how it goes on.
    """
    _listen()
    _state.sections += 1
    try:
        yield
    finally:
        _state.sections -= 1
        if not _state.sections and _state.raised:
            _state.raised = False
            if then_end:
                _end()


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Let what is put in order here come to its end first: SIGTERM is raised after it, Ctrl-C at once."""
    _state.shields += 1
    try:
        yield
    finally:
        _state.shields -= 1
        if not _state.shields and _state.waiting:
            _state.waiting = False
            _take()


def before_the_end(close: Callable[[str], object]) -> None:
    """Have `put_in_order` call `close`, with the reason in words: it closes what is held from one call to the next."""
    _listen()
    _state.left_open.append(close)


def put_in_order(why: str) -> None:
    """Close what is still held: nobody will go on with it."""
    for close in _state.left_open:
        close(why)


def sent(error: BaseException) -> signal.Signals:
    """The signal behind an interrupt: SIGTERM if Terminated is what it came of, else SIGINT, as Ctrl-C sends."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, Terminated):
        seen = seen.__cause__ or seen.__context__
    return signal.SIGTERM if seen is not None else signal.SIGINT


def reason(error: BaseException) -> str:
    """What ended it, in words: `interrupted by Ctrl-C`."""
    return f"interrupted by {'SIGTERM' if sent(error) is signal.SIGTERM else 'Ctrl-C'}"


def exit_code(error: BaseException) -> int:
    """What a shell expects of a command that this interrupt has ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + sent(error)


def _listen() -> None:
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    del number, frame
    if _state.raised:
        return
    if _state.shields:
        _state.waiting = True
    else:
        _take()


def _take() -> None:
    if not _state.sections:
        _end()
    elif not _state.raised:
        _state.raised = True
        raise Terminated


def _end() -> None:
    _state.raised = True  # it may be sent again meanwhile
    put_in_order("SIGTERM ended its process")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
