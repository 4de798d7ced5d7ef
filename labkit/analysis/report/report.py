"""A notebook executed by papermill, and its executed copy as one HTML file that opens anywhere, offline."""

from __future__ import annotations

import contextlib
import math
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape as html_escape
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from labkit import interrupts, paths, progress
from labkit.analysis.report import html_tables, in_kernel, sentences
from labkit.analysis.report.findings import Findings, head, summary
from labkit.analysis.words import NOT_VALID, SMALL_PT, SMALL_PX
from labkit.errors import LabkitError, RunError
from labkit.remedies import advice
from labkit.run.store import RUN_MIME, Run, RunStore, read_run

_TEMPLATES = Path(__file__).parent / "templates"
_BY_HAND = "by-hand"  # the tag of cells for those who work in the notebook: a report has no use for them
_MOST_LEADING = 3  # sentences in bold at the head: what a hurried reader remembers
_BEGINNING_S = 1.0  # within which a kernel has begun the cell that it was sent
_GRACE_S = 60.0  # for an interrupted notebook to close its files and take its servers down


@dataclass(frozen=True)
class Executed:
    """An executed notebook: its document, where it lies, and the run it displayed, if any."""

    notebook: nbformat.NotebookNode
    path: Path
    run: Run | None


def execute(notebook: Path, parameters: Mapping[str, Any], output: Path | None = None) -> Executed:
    """Run a notebook with parameters in a kernel of this interpreter, showing its progress here.

    The executed copy becomes `output`, else the notebook of the run that it displayed. Raises the LabkitError
    that a cell raised, with its fields, and RunError for anything else that stopped it; KeyboardInterrupt (Terminated
    for SIGTERM) after the notebook was interrupted too and had its time to put things in order.
    """
    known = set(RunStore(paths.runs()).paths())
    with tempfile.TemporaryDirectory(prefix="labkit-") as folder:
        copy, bar = Path(folder) / notebook.name, Path(folder) / "progress.json"
        kernel = _Kernel({"LABKIT_PROGRESS": str(bar)})
        try:
            with progress.follow(bar):
                document = kernel.interruptible(lambda: _papermill(notebook, copy, parameters, kernel))
        except PapermillExecutionError as error:
            failed = _read(copy)
            kept = _keep(copy, _displayed(failed) or _begun(known), output)
            for shown in _outputs(failed):
                if by := shown.get("data", {}).get(in_kernel.INTERRUPTED_MIME):
                    # Its kernel alone was told to stop.
                    raise (interrupts.Terminated if by["signal"] == "SIGTERM" else KeyboardInterrupt) from None
            raise _explained(error, failed, notebook, kept) from None
        except DeadKernelError as error:
            helps = advice("see whether there is enough memory")
            raise RunError(f"the kernel that ran {notebook.name} died: {error}", remedy=helps) from None
        finally:
            _close_abandoned(known, kernel)
        run = _displayed(document)
        kept = _keep(copy, run, output)
        if kept is None:
            raise RunError(f"{notebook} displayed no run, so there is no place for its executed copy")
        return Executed(document, kept, run)


def _papermill(notebook: Path, copy: Path, parameters: Mapping[str, Any], kernel: _Kernel) -> nbformat.NotebookNode:
    document: nbformat.NotebookNode = papermill.execute_notebook(
        str(notebook),
        str(copy),
        parameters=dict(parameters),
        kernel_name="python3",
        progress_bar=False,
        kernel_manager_class=kernel.manager_class(),
        on_cell_start=kernel.before_cell,
    )
    return document


class _Kernel:
    """The kernel of one execution: this interpreter's, and interrupted when this process is."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        # Kernels warn about frozen modules on the terminal otherwise.
        self._environment = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", **environment}
        self._manager: AsyncKernelManager | None = None
        self._stopping = False
        self._cell_began = 0.0
        self.killed = False

    def manager_class(self) -> type[AsyncKernelManager]:
        """A manager that ignores installed kernel specifications: they may point to another Python."""
        # Its log would mix with what a command prints; what a cell raises comes back as a message.
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=50"]
        argv += ["--ext", in_kernel.__name__]
        spec = KernelSpec(argv=argv, env=self._environment, display_name="Python 3", language="python")
        outer = self

        class ThisInterpreter(AsyncKernelManager):
            @property
            def kernel_spec(self) -> KernelSpec:
                outer._manager = self
                return spec

        return ThisInterpreter

    def before_cell(self, **_: Any) -> None:
        """A signal between two cells would be lost: no further cell may begin."""
        if self._stopping:
            self._end_idle()
            # Not KeyboardInterrupt, which would tear the event loop down and leave the kernel no time to close.
            raise RunError("interrupted between two cells")
        self._cell_began = time.monotonic()

    def interruptible(self, work: Callable[[], nbformat.NotebookNode]) -> nbformat.NotebookNode:
        """The result of `work`, done in a thread: nbclient would take the main thread's signals and kill the kernel."""
        done: list[nbformat.NotebookNode] = []
        failed: list[BaseException] = []
        # Not Thread.join: interrupted, it takes a running thread for ended (Python 3.11).
        ended = threading.Event()

        def do() -> None:
            try:
                done.append(work())
            except BaseException as error:
                failed.append(error)
            finally:
                ended.set()

        thread = threading.Thread(target=do, name="notebook")
        thread.start()
        try:
            ended.wait()
        except KeyboardInterrupt as error:
            self._stop(ended, interrupts.sent(error))
            raise
        if failed:
            raise failed[0]
        return done[0]

    def _stop(self, ended: threading.Event, number: signal.Signals) -> None:
        self._stopping = True
        with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C means now
            # A kernel that has been sent a cell and has not begun it yet would ignore Ctrl-C.
            ended.wait(max(0.0, self._cell_began + _BEGINNING_S - time.monotonic()))
            self._signal(number)
            ended.wait(_GRACE_S)
        if not ended.is_set():
            self.killed = True
            self._signal(signal.SIGKILL)
            ended.wait()

    def _end_idle(self) -> None:
        """Have a kernel end that executes no cell, with time for what is left open from one cell to the next."""
        self._signal(signal.SIGTERM)
        if (process := self._process) is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)

    def _signal(self, number: signal.Signals) -> None:
        if (process := self._process) is not None:
            process.send_signal(number)  # nothing if it has ended

    @property
    def _process(self) -> subprocess.Popen[bytes] | None:
        """None before it is started, and once its manager has seen it end."""
        return getattr(self._manager.provisioner, "process", None) if self._manager else None


def _displayed(document: nbformat.NotebookNode) -> Run | None:
    """The run that a notebook displayed, known by its own entry among the output's types."""
    for output in _outputs(document):
        if RUN_MIME in output.get("data", {}):
            return read_run(Path(output["data"][RUN_MIME]["path"]))
    return None


def _begun(known: set[Path]) -> Run | None:
    """The run that was begun since; None if there is none, or several and it is not known whose."""
    fresh = [path for path in RunStore(paths.runs()).paths() if path not in known]
    return read_run(fresh[0]) if len(fresh) == 1 else None


def _close_abandoned(known: set[Path], kernel: _Kernel) -> None:
    """A killed notebook could not mark its run as failed."""
    run = _begun(known)
    if kernel.killed and run is not None and run.status == "started":
        run.mark("failed", "interrupted; the notebook had to be killed")


def _read(path: Path) -> nbformat.NotebookNode:
    document: nbformat.NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return document


def _keep(copy: Path, run: Run | None, output: Path | None) -> Path | None:
    target = output or (run.notebook if run else None)
    if target is not None and copy.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(copy.read_bytes())
    return target


def _explained(
    error: PapermillExecutionError, failed: nbformat.NotebookNode, notebook: Path, kept: Path | None
) -> LabkitError:
    """An error that labkit raised on purpose, as it was; for a bug, where to find its traceback."""
    more = [advice(f"see the executed notebook, {kept}")] if kept else []
    for output in _outputs(failed):
        if fields := output.get("data", {}).get(in_kernel.ERROR_MIME):
            raised = LabkitError.from_dict(fields)
            raised.remedies = (*raised.remedies, *more)
            return raised
    reason = f"{notebook.name}, cell {error.exec_count}: {error.ename}: {error.evalue}"
    return RunError(reason if kept else f"{reason}\n{error}", remedy=more)


def _outputs(document: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    for cell in document.cells:
        yield from cell.get("outputs", [])


def export(
    executed: Path, html: Path, lead: Sequence[str] = (), footer: str = "", compared: Sequence[str] = ()
) -> Path:
    """Write an executed notebook as one HTML file: no script, no request to anywhere, code folded away.

    `lead` are the sentences that a hurried reader should see, right below the question, `compared` those on what is
    compared.
    """
    document = _read(executed)
    document.cells = [cell for cell in document.cells if _BY_HAND not in cell.metadata.get("tags", [])]
    if lead:
        document.cells.insert(1, _markdown(_head(lead, compared)))
    style = (_TEMPLATES / "report" / "style.css").read_text(encoding="utf-8")
    config = Config({"HTMLExporter": {"exclude_input_prompt": True, "exclude_output_prompt": True}})
    exporter: Any = HTMLExporter(  # type: ignore[no-untyped-call]
        config=config, template_name="report", extra_template_basedirs=[str(_TEMPLATES)], exclude_anchor_links=True
    )
    exporter.register_filter("least_width", least_width)
    exporter.register_filter("table_width", html_tables.width)
    exporter.register_filter("with_sentences", html_tables.with_sentences)
    page, _ = exporter.from_notebook_node(
        document, resources={"report": {"title": title(document), "css": style, "footer": footer}}
    )
    html.parent.mkdir(parents=True, exist_ok=True)
    html.write_text(page, encoding="utf-8")
    return html


def _head(lead: Sequence[str], compared: Sequence[str]) -> str:
    """The first three sentences in bold, what makes the run worthless before all others; below, as text, the rest.

    What was compared, and what differs between the two, is the last of it.
    """
    ordered = sorted(lead, key=lambda sentence: not sentence.startswith(NOT_VALID))
    groups = {"lead": ordered[:_MOST_LEADING], "more": [*ordered[_MOST_LEADING:], *compared]}
    # Sentences can carry names that a server sent: nothing in them may become markup.
    items = {name: "".join(f"<li>{html_escape(sentence)}</li>" for sentence in group) for name, group in groups.items()}
    return "".join(f'<ul class="{name}">{inside}</ul>' for name, inside in items.items() if inside)


def least_width(svg: str) -> int:
    """How many pixels wide a figure must be shown at least, so that its smallest text stays readable; 0: unknown."""
    found = re.search(r'<svg[^>]*\bwidth="([\d.]+)pt"', svg)
    return math.ceil(float(found[1]) * SMALL_PX / SMALL_PT) if found else 0


def _markdown(source: str) -> nbformat.NotebookNode:
    cell: nbformat.NotebookNode = nbformat.v4.new_markdown_cell(source)  # type: ignore[no-untyped-call]
    return cell


def title(document: nbformat.NotebookNode) -> str:
    """The notebook's first heading: its question."""
    for cell in document.cells:
        found = re.search(r"^# +(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if found:
            return found[1].strip()
    return "labkit"


def publish(executed: Executed, run: Run, findings: Findings) -> Path:
    """Write the report and the summary of a run; returns the report's path."""
    run.keep_summary(summary(run, findings))
    footer = f"labkit run {run.id}, {run.state}"
    return export(executed.path, run.page, head(run, findings), footer, sentences.compared(run))
